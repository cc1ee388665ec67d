package client

import (
	"fmt"
	"strings"
	"time"
)

// Outcome is what requests for some keys came to.
type Outcome struct {
	// Found are the generations of what was found, by key. Missed and Failed are the keys of which nothing was, and why not.
	Found  map[string]string
	Missed map[string]bool
	Failed map[string]string

	// Stored and Failures are how many values were stored and how many requests failed; Slowest is how long one took.
	Stored, Failures int
	Slowest          time.Duration
}

// Set stores a value that tells its key and generation, and is as much longer as the padding.
func (o *Outcome) Set(c *Client, key, generation, padding string) {
	began := time.Now()
	err := c.Set(key, key+"="+generation+"="+padding)
	o.took(began)
	if err != nil {
		o.fail(key, err)
		return
	}
	o.Stored++
}

// Get looks for what Set stored.
func (o *Outcome) Get(c *Client, key string) {
	began := time.Now()
	value, found, err := c.Get(key)
	o.took(began)
	switch generation, isKeys := strings.CutPrefix(value, key+"="); {
	case err != nil:
		o.fail(key, err)
	case !found:
		o.Missed = with(o.Missed, key, true)
	case !isKeys:
		o.fail(key, fmt.Errorf("the value begins with %.40q", value))
	default:
		generation, _, _ = strings.Cut(generation, "=")
		o.Found = with(o.Found, key, generation)
	}
}

func (o *Outcome) fail(key string, err error) {
	o.Failures++
	o.Failed = with(o.Failed, key, err.Error())
}

func (o *Outcome) took(began time.Time) { o.Slowest = max(o.Slowest, time.Since(began)) }

// with returns the map, or one where there is none yet, with one more value in it.
func with[V any](in map[string]V, key string, value V) map[string]V {
	if in == nil {
		in = map[string]V{}
	}
	in[key] = value
	return in
}
