package populate

// removeOpen leaves the file, which cannot be removed while it is open.
func removeOpen(string) error { return nil }
