package controller

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pillion-dev/pillion/profiles"
)

func TestTheDefaultProfilesCanBeUsed(t *testing.T) {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, profile := range theDefaults(t) {
		names = append(names, profile.Name)
		compiled := compiler.Cluster(&profile)
		if err := compiled.Problems.ToAggregate(); err != nil {
			t.Errorf("%s: %v", profile.Name, err)
		}
		if profile.Labels != nil || profile.Annotations != nil {
			t.Errorf("%s has labels or annotations, which would not be written", profile.Name)
		}
	}
	if diff := cmp.Diff([]string{"cache-ambassador", "git-sync", "prometheus-adapter", "template-processor"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestWhatHoldsWhat(t *testing.T) {
	tests := map[string]struct {
		stands, wrote string
		want          bool
	}{
		"the same":                      {`{"a": {"b": [1, "x"]}}`, `{"a": {"b": [1, "x"]}}`, true},
		"more keys, as defaults are":    {`{"a": {"b": 1, "c": 2}, "d": 3}`, `{"a": {"b": 1}}`, true},
		"an object that was empty":      {`{"a": {"b": 1}}`, `{"a": {}}`, true},
		"a key less":                    {`{"a": {}}`, `{"a": {"b": 1}}`, false},
		"an object less":                {`{}`, `{"a": {}}`, false},
		"another value":                 {`{"a": 1}`, `{"a": 2}`, false},
		"an item of a list less":        {`{"a": [1]}`, `{"a": [1, 2]}`, false},
		"an item of a list more":        {`{"a": [1, 2, 3]}`, `{"a": [1, 2]}`, false},
		"a value in place of an object": {`{"a": 1}`, `{"a": {}}`, false},
		"nothing at all":                {`null`, `{}`, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var stands, wrote any
			if json.Unmarshal([]byte(test.stands), &stands) != nil || json.Unmarshal([]byte(test.wrote), &wrote) != nil {
				t.Fatal("the test's JSON is wrong")
			}
			if got := holds(stands, wrote); got != test.want {
				t.Errorf("%t, want %t", got, test.want)
			}
		})
	}
}
