"""The network of sandboxes that may reach something: what the helper makes of links, rules and names."""
