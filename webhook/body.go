package webhook

import (
	"errors"
	"io"
	"mime"
	"net/http"
)

// read reads the body of a request that may hold an admission review. Of one that is too large it returns the beginning.
func (h *handler) read(w http.ResponseWriter, r *http.Request, allowed *allowance) ([]byte, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, faultf(http.StatusMethodNotAllowed, "send admission reviews by POST, not by %s", r.Method)
	}
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != "application/json" {
		return nil, faultf(http.StatusUnsupportedMediaType, "send application/json")
	}
	if r.ContentLength > h.options.MaxBodyBytes {
		const beginning = 64 << 10
		if !allowed.take(beginning) {
			return nil, h.tooMany(limitBytes, h.inFlight.mostBytes, "bytes")
		}
		body, _ := io.ReadAll(io.LimitReader(r.Body, beginning))
		return body, h.tooLarge()
	}
	limited := http.MaxBytesReader(w, r.Body, h.options.MaxBodyBytes)
	var body []byte
	var err error
	if r.ContentLength > 0 { // at once, where the length is known
		if !allowed.take(r.ContentLength) {
			return nil, h.tooMany(limitBytes, h.inFlight.mostBytes, "bytes")
		}
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(limited, body)
	} else {
		body, err = h.readUnknown(limited, allowed)
	}
	if err == nil {
		if len(body) == 0 {
			err = faultf(http.StatusBadRequest, "the body is empty")
		}
		return body, err
	}
	tooLong, known := &http.MaxBytesError{}, &fault{}
	switch {
	case errors.As(err, &known):
		return nil, err
	case errors.As(err, &tooLong):
		return body, h.tooLarge()
	default:
		return nil, faultf(http.StatusBadRequest, "read the body: %w", err)
	}
}

func (h *handler) tooLarge() error {
	return faultf(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", h.options.MaxBodyBytes)
}

// chunk is what is read of a body first whose length is not known.
const chunk = 8 << 10

// readUnknown reads a body whose length is not known. What it takes is counted as it grows.
func (h *handler) readUnknown(body io.Reader, allowed *allowance) ([]byte, error) {
	read := make([]byte, 0, chunk)
	if !allowed.take(chunk) {
		return nil, h.tooMany(limitBytes, h.inFlight.mostBytes, "bytes")
	}
	for {
		if len(read) == cap(read) {
			if !allowed.take(int64(cap(read))) {
				return nil, h.tooMany(limitBytes, h.inFlight.mostBytes, "bytes")
			}
			read = append(make([]byte, 0, 2*cap(read)), read...)
		}
		n, err := body.Read(read[len(read):cap(read)])
		read = read[:len(read)+n]
		switch {
		case err == io.EOF:
			return read, nil
		case err != nil:
			return read, err
		}
	}
}
