package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJUnitCountsWhatFailed(t *testing.T) {
	suites := []Suite{
		{Name: "deploy/shop.yaml", Cases: []Case{
			{Name: "it is injected", File: "deploy/shop.yaml", Line: 3, Seconds: 0.25},
			{Name: `a "name" & <more>`, File: "deploy/shop.yaml", Line: 9, Seconds: 1, Failure: "the Pod was refused\nwant it allowed"},
		}},
		{Name: "empty"},
	}
	want := `<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="2" failures="1" errors="0" time="1.250">
  <testsuite name="deploy/shop.yaml" tests="2" failures="1" errors="0" skipped="0" time="1.250">
    <testcase name="it is injected" classname="deploy/shop.yaml" file="deploy/shop.yaml" line="3" time="0.250"></testcase>
    <testcase name="a &#34;name&#34; &amp; &lt;more&gt;" classname="deploy/shop.yaml" file="deploy/shop.yaml" line="9" time="1.000">
      <failure message="the Pod was refused">the Pod was refused&#xA;want it allowed</failure>
    </testcase>
  </testsuite>
  <testsuite name="empty" tests="0" failures="0" errors="0" skipped="0" time="0.000"></testsuite>
</testsuites>
`
	out := &bytes.Buffer{}
	if err := JUnit(out, suites); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("XML (-want +got):\n%s", diff)
	}
}

// A message may quote whatever a file holds, and XML has no way to write some of that.
func TestJUnitIsXMLWhateverMessagesHold(t *testing.T) {
	hostile := "a\x00b\x1b[31mc\xff\ufffe]]>\u0085d\ttab"
	out := &bytes.Buffer{}
	if err := JUnit(out, []Suite{{Name: hostile, Cases: []Case{{Name: hostile, File: hostile, Failure: hostile}}}}); err != nil {
		t.Fatal(err)
	}
	read := junitSuites{}
	if err := xml.Unmarshal(out.Bytes(), &read); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	want := "a\ufffdb\ufffd[31mc\ufffd\ufffd]]>\ufffdd\ttab"
	if got := read.Suites[0].Cases[0].Failure.Text; got != want {
		t.Errorf("failure %q, want %q", got, want)
	}
	if strings.ContainsAny(out.String(), "\x00\x1b") {
		t.Error("control characters are in the output")
	}
}

func TestReportsSayWhenTheyCannotBeWritten(t *testing.T) {
	reader, writer := io.Pipe()
	_ = reader.Close()
	if err := JUnit(writer, nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("JUnit: %v", err)
	}
	if err := SARIF(writer, "v1", nil, nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("SARIF: %v", err)
	}
}
