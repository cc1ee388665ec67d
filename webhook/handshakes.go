package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pillion-dev/pillion/certs"
)

// Why a handshake failed, as metrics tell it.
const (
	// handshakeUntrusted says that the client did not accept the certificate.
	handshakeUntrusted = "untrusted"
	// handshakeNoCertificate says that there was none to present yet.
	handshakeNoCertificate = "no_certificate"
	// handshakeClient says that the client presented no certificate, or none that is accepted.
	handshakeClient = "client_certificate"
	// handshakeProtocol says that the client does not speak TLS 1.3: plain HTTP, an older version, or nonsense.
	handshakeProtocol = "protocol"
	handshakeTimeout  = "timeout"
	// handshakeClosed says that the connection ended before: as port probes and load balancers do it.
	handshakeClosed = "closed"
	handshakeOther  = "other"
)

// handshakeReasons are all of them, in the order of docs/observability.md.
func handshakeReasons() []string {
	return []string{
		handshakeUntrusted, handshakeNoCertificate, handshakeClient, handshakeProtocol, handshakeTimeout, handshakeClosed, handshakeOther,
	}
}

// tellEvery is how often a handshake that failed for want of trust is logged at most. All are counted.
const tellEvery = 10 * time.Second

// handshakes counts those that failed.
type handshakes struct {
	metrics *Metrics
	logger  *slog.Logger
	told    atomic.Int64 // when one was logged last, in nanoseconds since 1970
}

// noteState is for http.Server.ConnState. A connection remembers why its handshake failed; the server's log has only the text of it.
func (h *handshakes) noteState(conn net.Conn, state http.ConnState) {
	noteState(conn, state)
	if state != http.StateClosed {
		return
	}
	encrypted, ok := conn.(*tls.Conn)
	if !ok || encrypted.ConnectionState().HandshakeComplete {
		return
	}
	err := encrypted.HandshakeContext(context.Background()) // it has ended: this returns how
	reason := reasonOfHandshake(err)
	h.metrics.handshakeFailed(reason)
	if reason != handshakeUntrusted && reason != handshakeClient {
		return
	}
	now, last := time.Now().UnixNano(), h.told.Load()
	if now-last >= int64(tellEvery) && h.told.CompareAndSwap(last, now) {
		h.logger.Warn("handshake failed", "reason", reason, "client", conn.RemoteAddr().String(), "error", inHeader(err.Error()))
	}
}

// reasonOfHandshake returns a word of the fixed set.
func reasonOfHandshake(err error) string {
	network, isRemote := (*net.OpError)(nil), false
	if errors.As(err, &network) {
		isRemote = network.Op == "remote error"
	}
	timeout := net.Error(nil)
	switch {
	case err == nil:
		return handshakeOther
	case errors.Is(err, certs.ErrNoCertificate):
		return handshakeNoCertificate
	case isRemote && rejectsCertificate(network.Err):
		return handshakeUntrusted
	case isRemote:
		return handshakeProtocol
	case isAboutClient(err):
		return handshakeClient
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return handshakeTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return handshakeClosed
	case errors.As(err, &tls.RecordHeaderError{}), strings.HasPrefix(err.Error(), "tls: "): // what crypto/tls makes of nonsense
		return handshakeProtocol
	default:
		return handshakeOther
	}
}

// rejectsCertificate tells whether an alert is about the certificate that was presented (RFC 8446, 6.2): bad_certificate,
// unsupported_certificate, certificate_revoked, certificate_expired, certificate_unknown or unknown_ca. The type of an alert is
// not exported, but its text is that of an AlertError.
func rejectsCertificate(alert error) bool {
	return slices.ContainsFunc([]tls.AlertError{42, 43, 44, 45, 46, 48}, func(known tls.AlertError) bool {
		return alert.Error() == known.Error()
	})
}

// noClientCertificate is what crypto/tls says where a client presents no certificate. A test holds it to that.
const noClientCertificate = "tls: client didn't provide a certificate"

func isAboutClient(err error) bool {
	refused, name := (*tls.CertificateVerificationError)(nil), (*clientNameError)(nil)
	return errors.As(err, &refused) || errors.As(err, &name) || err.Error() == noClientCertificate
}
