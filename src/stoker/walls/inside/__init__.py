"""The probe: what is run within walls to see them; for every Python from 3.8 on, with nothing but its own."""
