package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/pod-security-admission/api"
)

func oneOf(words ...string) func(any) error {
	return func(value any) error {
		if slices.Contains(words, value.(string)) {
			return nil
		}
		return fmt.Errorf("%q is none of %s", value, strings.Join(words, ", "))
	}
}

// each checks the items of a list, and that none is there twice.
func each(check func(any) error) func(any) error {
	return func(value any) error {
		var errs []error
		list := value.([]string)
		for i, item := range list {
			if slices.Contains(list[:i], item) {
				errs = append(errs, fmt.Errorf("%q is there twice", item))
			} else if err := check(item); err != nil {
				errs = append(errs, err)
			}
		}
		return join(errs)
	}
}

// join is errors.Join on one line.
func join(errs []error) error {
	var messages []string
	for _, err := range errs {
		messages = append(messages, err.Error())
	}
	if len(messages) == 0 {
		return nil
	}
	return errors.New(strings.Join(messages, "; "))
}

func dnsLabel(value any) error { return named(value, "a DNS label", validation.IsDNS1123Label) }

func dnsName(value any) error { return named(value, "a DNS name", validation.IsDNS1123Subdomain) }

func named(value any, what string, check func(string) []string) error {
	if problems := check(value.(string)); len(problems) > 0 {
		return fmt.Errorf("%q is not %s: %s", value, what, strings.Join(problems, ", "))
	}
	return nil
}

func notBlank(value any) error {
	if text := value.(string); strings.TrimSpace(text) != text || text == "" {
		return fmt.Errorf("%q is empty, or begins or ends with a blank", text)
	}
	return nil
}

func securityLevel(value any) error {
	if _, err := api.ParseLevel(value.(string)); err != nil {
		return fmt.Errorf("%q is not a Pod Security level: it %w", value, err)
	}
	return nil
}

func securityVersion(value any) error {
	if _, err := api.ParseVersion(value.(string)); err != nil {
		return fmt.Errorf("%q is not a version of Pod Security: it %w, for example v1.33", value, err)
	}
	return nil
}

func between(least, most int64) func(any) error {
	return func(value any) error {
		if n := value.(int64); n < least || n > most {
			return fmt.Errorf("%d is not between %d and %d", n, least, most)
		}
		return nil
	}
}

func lasting(least, most time.Duration) func(any) error {
	return func(value any) error {
		if d := value.(time.Duration); d < least || d > most {
			return fmt.Errorf("%s is not between %s and %s", shortDuration(d), shortDuration(least), shortDuration(most))
		}
		return nil
	}
}

// wholeSeconds is lasting, for what the API holds in seconds.
func wholeSeconds(least, most time.Duration) func(any) error {
	return func(value any) error {
		if d := value.(time.Duration); d%time.Second != 0 {
			return fmt.Errorf("%s is not a number of whole seconds", shortDuration(d))
		}
		return lasting(least, most)(value)
	}
}

// address checks what a process listens on. A name would be looked up and is refused.
func address(value any) error {
	host, port, err := net.SplitHostPort(value.(string))
	if err != nil {
		return fmt.Errorf("%q is not [HOST]:PORT, for example :9443 or 127.0.0.1:9443", value)
	}
	if _, err := portNumber(port); err != nil {
		return fmt.Errorf("%q: %w", value, err)
	}
	if host != "" && host != "localhost" && net.ParseIP(host) == nil {
		return fmt.Errorf("%q: the host %q is not an IP address; for all of the machine's write :%s", value, host, port)
	}
	return nil
}

func portNumber(port string) (int32, error) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return 0, fmt.Errorf("the port %q is not a number from 1 to 65535", port)
	}
	return int32(n), nil
}

func service(value any) error {
	s := value.(Service)
	if err := named(s.Name, "the name of a Service", validation.IsDNS1035Label); err != nil {
		return err
	}
	if s.Port < 1 || s.Port > 65535 {
		return fmt.Errorf("the port %d is not from 1 to 65535", s.Port)
	}
	return nil
}

func parseService(text string) (Service, error) {
	name, port, ok := strings.Cut(text, ":")
	if !ok {
		return Service{}, fmt.Errorf("%q is not NAME:PORT, for example pillion-webhook:443", text)
	}
	number, err := portNumber(port)
	if err != nil {
		return Service{}, fmt.Errorf("%q: %w", text, err)
	}
	return Service{Name: name, Port: number}, nil
}

// webhookURL checks what a MutatingWebhookConfiguration takes in clientConfig.url, to which paths can be added.
func webhookURL(value any) error {
	u, err := url.Parse(value.(string))
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a URL", value)
	case u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("%q is not https://HOST[:PORT][/PATH]", value)
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(value.(string), "#"):
		return fmt.Errorf("%q may not have a user, a query or a fragment", u.Redacted())
	}
	if port := u.Port(); port != "" {
		if _, err := portNumber(port); err != nil {
			return fmt.Errorf("%q: %w", value, err)
		}
	}
	return nil
}

const (
	hostPattern = `[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]{1,5})?`
	pathPattern = `(/[a-z0-9]+([._-]+[a-z0-9]+)*)*`
)

// issuer checks a reference to an issuer of cert-manager.
func issuer(value any) error {
	pattern := `^[A-Z][A-Za-z0-9]{0,62}(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`
	if !regexp.MustCompile(pattern).MatchString(value.(string)) {
		return fmt.Errorf("%q is not KIND/NAME or KIND.GROUP/NAME, for example ClusterIssuer/internal", value)
	}
	return nil
}

func registry(value any) error {
	if !regexp.MustCompile(`^` + hostPattern + pathPattern + `$`).MatchString(value.(string)) {
		return fmt.Errorf("%q is not HOST[:PORT][/PATH], for example registry.example.com/mirror", value)
	}
	return nil
}

func image(value any) error {
	pattern := `^` + hostPattern + pathPattern + `(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[a-f0-9]{64})?$`
	if !regexp.MustCompile(pattern).MatchString(value.(string)) {
		return fmt.Errorf("%q is not an image, for example registry.example.com/pillion:v1.2.3", value)
	}
	return nil
}
