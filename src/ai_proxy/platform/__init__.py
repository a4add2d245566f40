"""The ground floor: owned background work, folders, private files, addresses, the service manager."""
