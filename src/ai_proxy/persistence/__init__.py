"""What is kept across restarts: a database, and one repository for each thing in it."""
