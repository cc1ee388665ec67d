package patterns_test

import (
	"context"
	"testing"

	"github.com/pillion-dev/pillion/test/node/installed"
)

func TestTheChartsOwnTestPasses(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(cluster.Explain(context.Background(), installed.Namespace))
		}
	})
	said, err := cluster.Helm(t.Context(), "test", "pillion")
	if err != nil {
		t.Fatal(err)
	}
	t.Log(said)
}
