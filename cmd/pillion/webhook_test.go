package main

import (
	"bytes"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The processes of a cluster refuse to start, and name the file, the line and the key.
func TestAConfigurationFileThatIsWrongKeepsAProcessFromStarting(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for name, test := range map[string]struct{ file, want string }{
		"an unknown key": {"logLevel: info\nlogLevle: info\n", "pillion.yaml:2: logLevle: "},
		"a key twice":    {"logLevel: info\nlogLevel: warn\n", "pillion.yaml:2: logLevel: "},
		"an empty value": {"webhook:\n  maxBytesInFlight:\n", "pillion.yaml:2: webhook.maxBytesInFlight: "},
	} {
		file := filepath.Join(t.TempDir(), "pillion.yaml")
		if err := os.WriteFile(file, []byte(test.file), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"webhook", "controller"} {
			if _, _, err := run(t, nil, "", command, "--config", file); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s with %s: %v, want it to say %q", command, name, err, test.want)
			}
		}
	}
}

func TestAMemoryLimitThatIsTooLowIsToldOf(t *testing.T) {
	for name, test := range map[string]struct {
		limit, inFlight int64
		want            bool
	}{
		"none":     {limit: math.MaxInt64, inFlight: 28 << 20},
		"enough":   {limit: 104 << 20, inFlight: 28 << 20},
		"too low":  {limit: 100 << 20, inFlight: 28 << 20, want: true},
		"much too": {limit: 1 << 20, inFlight: 1 << 20, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			log := &bytes.Buffer{}
			warnOfMemory(slog.New(slog.NewTextHandler(log, nil)), test.limit, test.inFlight)
			if got := log.Len() > 0; got != test.want {
				t.Errorf("told: %v: %s", got, log)
			}
		})
	}
}
