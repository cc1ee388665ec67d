package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/pillion-dev/pillion/certs"
)

// noopCommand is the first argument with which this program is the no-op webhook instead.
const noopCommand = "serve-noop"

// warningsSuffix ends the path at which the no-op webhook is given the warnings, JSON, that another path answers with.
const warningsSuffix = "/warnings"

// noop is a webhook in a process of its own that does nothing but answer with a patch it was given: the floor for any webhook
// that gives this patch.
type noop struct {
	command *exec.Cmd
	url     string
	dir     string
	ca      []byte
	client  *http.Client
}

// startNoop starts the no-op webhook on a free port of loopback.
func startNoop(dir string) (*noop, error) {
	now := time.Now()
	names := []string{"127.0.0.1"}
	ca, err := certs.NewCA(names, 24*time.Hour, now)
	if err != nil {
		return nil, err
	}
	leaf, err := certs.NewLeaf(ca, names, 24*time.Hour, now)
	if err != nil {
		return nil, err
	}
	certificate, key := filepath.Join(dir, "noop.crt"), filepath.Join(dir, "noop.key")
	if err := errors.Join(os.WriteFile(certificate, leaf.Certificate, 0o600), os.WriteFile(key, leaf.Key, 0o600)); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, noopCommand, certificate, key) //nolint:noctx // stop ends it
	command.Stderr = os.Stderr
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start the no-op webhook: %w", err)
	}
	n := &noop{command: command, dir: dir, ca: ca.Certificate}
	address := make([]byte, 64)
	length, err := output.Read(address)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the no-op webhook's address: %w", err), n.stop())
	}
	n.url = "https://" + strings.TrimSpace(string(address[:length]))
	n.client, err = trusting(ca.Certificate)
	return n, err
}

func (n *noop) stop() error {
	if err := n.command.Process.Kill(); err != nil {
		return err
	}
	_ = n.command.Wait() // it was killed
	return nil
}

// give says which patch a path answers with; none: the path records the review it is asked with, and answers yes.
func (n *noop) give(path string, patch []byte) error {
	request, err := http.NewRequest(http.MethodPut, n.url+path, bytes.NewReader(patch)) //nolint:noctx // it is local and brief
	if err != nil {
		return err
	}
	response, err := n.client.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// recorded returns the review that a path was last asked with.
func (n *noop) recorded(path string) ([]byte, error) {
	response, err := n.client.Get(n.url + path) //nolint:noctx // it is local and brief
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	return io.ReadAll(response.Body)
}

// serveNoop is the no-op webhook's process.
func serveNoop(certificate, key string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	server := &http.Server{
		Handler: &noopHandler{patches: map[string][]byte{}, reviews: map[string][]byte{}}, ReadHeaderTimeout: 5 * time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13},
	}
	return server.ServeTLS(listener, certificate, key)
}

type noopHandler struct {
	mu      sync.RWMutex
	patches map[string][]byte
	reviews map[string][]byte
}

func (h *noopHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch r.Method {
	case http.MethodPut:
		h.mu.Lock()
		h.patches[r.URL.Path] = body
		h.mu.Unlock()
	case http.MethodGet:
		h.mu.RLock()
		defer h.mu.RUnlock()
		_, _ = w.Write(h.reviews[r.URL.Path])
	default:
		h.review(w, r.URL.Path, body)
	}
}

// review reads of the review only its uid, and answers with the path's patch.
func (h *noopHandler) review(w http.ResponseWriter, path string, body []byte) {
	var review struct {
		Request struct {
			UID string `json:"uid"`
		} `json:"request"`
	}
	if err := json.Unmarshal(body, &review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.mu.RLock()
	patch, warnings := h.patches[path], h.patches[path+warningsSuffix]
	h.mu.RUnlock()
	answer := admissionv1.AdmissionReview{Response: &admissionv1.AdmissionResponse{Allowed: true}}
	answer.APIVersion, answer.Kind = "admission.k8s.io/v1", "AdmissionReview"
	answer.Response.UID = typesUID(review.Request.UID)
	switch {
	case len(warnings) > 0:
		if err := json.Unmarshal(warnings, &answer.Response.Warnings); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	case len(patch) > 0:
		jsonPatch := admissionv1.PatchTypeJSONPatch
		answer.Response.Patch, answer.Response.PatchType = patch, &jsonPatch
	default:
		h.mu.Lock()
		h.reviews[path] = body
		h.mu.Unlock()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // an error here is the API server's leaving
}
