package admission

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// scrape returns what the webhook's metrics are.
func (a *telling) scrape(t *testing.T) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.MetricsURL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() }) // it was only read
	return response
}

// counted returns the sum of the series of a metric that have some labels.
func (a *telling) counted(t *testing.T, metric string, labels ...string) (sum float64) {
	t.Helper()
	lines := bufio.NewScanner(a.scrape(t).Body)
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		if !strings.HasPrefix(series, metric+"{") || missing(series, labels...) != nil {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

func (a *telling) counts(t *testing.T) {
	a.createReady(t, cache("metrics-cache"))
	in := a.namespace(t, nil)
	of := func(labels ...string) float64 { return a.counted(t, "pillion_profile_outcomes_total", labels...) }
	woven := a.counted(t, "pillion_admissions_total", `result="woven"`)
	denied := a.counted(t, "pillion_admissions_total", `result="denied"`, `reason="ProfileNotAvailable"`)
	timed := a.counted(t, "pillion_admission_duration_seconds_count", `endpoint="mutate"`)
	unknown := of(`profile="(unknown)"`)

	a.admit(t, pod(in, v1alpha1.InjectKey, "metrics-cache"))
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	if _, err := a.server.Clientset.CoreV1().Pods(in).Create(t.Context(), pod(in, v1alpha1.InjectKey, "metrics-cache"), dry); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		p := pod(in, v1alpha1.InjectKey, fmt.Sprintf("metrics-cache,metrics-nosuch-%d", i))
		if _, err := a.server.Clientset.CoreV1().Pods(in).Create(t.Context(), p, metav1.CreateOptions{}); err == nil {
			t.Fatal("it is admitted")
		}
	}
	for what, counts := range map[string][2]float64{
		"Pods that were woven":     {1, a.counted(t, "pillion_admissions_total", `result="woven"`) - woven},
		"Pods that were refused":   {3, a.counted(t, "pillion_admissions_total", `result="denied"`, `reason="ProfileNotAvailable"`) - denied},
		"answers, dry runs too":    {5, a.counted(t, "pillion_admission_duration_seconds_count", `endpoint="mutate"`) - timed},
		"what the profile became":  {1, of(`profile="metrics-cache"`)},
		"that it was applied":      {1, of(`namespace=""`, `profile="metrics-cache"`, `result="Applied"`, `reason="Applied"`)},
		"names that nobody has":    {3, of(`profile="(unknown)"`) - unknown},
		"names that became labels": {0, of(`profile="metrics-nosuch`)},
	} {
		if counts[0] != counts[1] {
			t.Errorf("%s: %v are counted, want %v", what, counts[1], counts[0])
		}
	}
	for _, name := range []string{"pillion_snapshot_last_change_timestamp_seconds", "pillion_snapshot_last_contact_timestamp_seconds"} {
		at, err := a.Metric(t.Context(), name)
		if age := time.Since(time.UnixMilli(int64(at * 1000))); err != nil || age < 0 || age > 10*time.Minute {
			t.Errorf("%s is %v, %s ago: %v", name, at, age, err)
		}
	}
	problems, err := promlint.New(a.scrape(t).Body).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}

	if err := a.server.Client.Delete(t.Context(), cache("metrics-cache")); err != nil {
		t.Fatal(err)
	}
	a.awaitMetric(t, "the series of a profile that is gone goes", func() bool { return of(`profile="metrics-cache"`) == 0 })
}
