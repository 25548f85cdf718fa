-- A rate run: POST with a body of 100 bytes, or GET when the path says health; one line of JSON at the end.
if not wrk.path:find("health") then
  wrk.method = "POST"
  wrk.body = '{"text": "' .. string.rep("x", 88) .. '"}'
  wrk.headers["Content-Type"] = "application/json"
end

done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "duration_us": %d, "p50_us": %.1f, "p99_us": %.1f, "errors": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
