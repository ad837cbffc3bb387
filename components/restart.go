package components

// What a component that runs is told for its next process, and how that one begins.

// begin begins another start: the next process runs with what was said last, and it is the
// one that every restart that was asked for until now will get.
func (c *component) begin(first bool) {
	c.sup.mu.Lock()
	defer c.sup.mu.Unlock()
	if !first {
		c.status.Restarts++
	}
	select {
	case <-c.restart:
	default:
	}
	if c.pending != nil {
		c.entry, c.info, c.config, c.rank = c.pending.entry, c.pending.entry.Info, c.pending.config, c.pending.rank
		c.pending = nil
		c.status.Version, c.status.Summary = c.info.Version, c.info.Summary
	}
	c.set(Launching, "", nil)
}

// superseded tells that the process runs with settings that are not the newest.
func (c *component) superseded() bool {
	c.sup.mu.Lock()
	defer c.sup.mu.Unlock()
	return c.pending != nil
}

// waitsFor says what has to be there, or gone, before the component may run; "" when nothing
// is in its way. The lock is held.
func (c *component) waitsFor() string {
	if missing := c.sup.missing(c.info); len(missing) > 0 {
		return "waits for " + joinRequirements(missing)
	}
	for _, old := range c.after {
		if !old.gone {
			return "waits until " + old.id + " is gone"
		}
	}
	c.after = nil
	return ""
}

// askRestart is called with the lock held.
func (c *component) askRestart() {
	select {
	case c.restart <- struct{}{}:
	default: // one is asked for already
	}
}
