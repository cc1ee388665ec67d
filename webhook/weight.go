package webhook

import (
	"bytes"
	"net/http"
)

const (
	// mostElements is how many objects the lists of a review may hold. The API server stores 1.5 MiB of an object at most, with fields'
	// owners, in which some 17,000 variables fit, and Pods may have 250 containers. Without a bound seven megabytes of "{}," would
	// become two million containers and take gigabytes.
	mostElements = 20_000
	// mostValues is how many values a review may hold altogether: what is stored has some twenty bytes for each.
	mostValues = 400_000
	// fewValues are as many as nobody has to look at.
	fewValues = 500
	// elementBytes is about what an empty container takes, valueBytes what an entry of a map does.
	elementBytes, valueBytes = 1 << 10, 128
)

// weigh makes room for what a review takes once it is decoded, which may be far more than its bytes.
func (h *handler) weigh(body []byte, allowed *allowance) error {
	if bytes.Count(body, []byte{','}) <= fewValues { // in strings too
		return nil
	}
	elements, values := valuesIn(body)
	switch {
	case elements > mostElements:
		return faultf(http.StatusRequestEntityTooLarge, "the body holds more than %d objects in lists", mostElements)
	case values > mostValues:
		return faultf(http.StatusRequestEntityTooLarge, "the body holds more than %d values", mostValues)
	}
	weight := int64(elements)*elementBytes + int64(values-elements)*valueBytes
	if !allowed.take(min(weight, h.inFlight.mostBytes-allowed.bytes)) { // one that has all of it may be as heavy as it is
		return h.tooMany(limitBytes, h.inFlight.mostBytes, "bytes")
	}
	return nil
}

// valuesIn counts the objects in the lists of some JSON, and the values of all lists and objects; those that are the only one of theirs
// are left out of the latter, unless they are counted as the former. A null in a list is an object: it takes as much as an empty one. A
// comma between the members of an object has a name behind it, and neither a brace nor a null. What is no JSON is refused later.
func valuesIn(body []byte) (elements, values int) {
	last := byte(0)
	for i := 0; i < len(body); i++ {
		switch c := body[i]; c {
		case ' ', '\t', '\n', '\r':
			continue
		case '"':
			for i++; i < len(body) && body[i] != '"'; i++ {
				if body[i] == '\\' {
					i++
				}
			}
			last = '"'
		case ',':
			values++
			last = c
		case '{', 'n':
			switch last {
			case '[':
				values++
				elements++
			case ',':
				elements++
			}
			last = c
		default:
			last = c
		}
	}
	return elements, values
}
