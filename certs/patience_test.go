package certs

import (
	"testing"
	"time"
)

func TestSettlingEndsBeforeWhatServesDoes(t *testing.T) {
	const settle = 2 * time.Minute
	now := start()
	names := options().Names
	newCAOf := func(life time.Duration) Pair {
		ca, err := NewCA(names, life, now)
		if err != nil {
			t.Fatal(err)
		}
		return ca
	}
	leaf := func(ca Pair, life time.Duration) *situation {
		pair, err := NewLeaf(ca, names, life, now)
		if err != nil {
			t.Fatal(err)
		}
		serving, err := parse(pair)
		if err != nil {
			t.Fatal(err)
		}
		return &situation{now: now, names: names, settle: settle, holds: true, serving: serving, leaf: serving.Leaf}
	}
	tests := map[string]struct {
		caLife, leafLife time.Duration
		lost             bool // the key of the CA that signs
		want             time.Duration
	}{
		"a CA that lives on leaves all the time":                   {caLife: time.Hour, leafLife: time.Minute, want: settle},
		"a CA that ends sooner is replaced before":                 {caLife: time.Minute, leafLife: time.Minute, want: time.Minute - settle/10},
		"a CA that ends at once is replaced at once":               {caLife: settle / 20, leafLife: time.Second, want: 0},
		"without a key the leaf is what ends":                      {caLife: time.Hour, leafLife: time.Minute, lost: true, want: time.Minute - settle/10},
		"without a key a leaf that lives on leaves all the time":   {caLife: time.Hour, leafLife: 10 * time.Minute, lost: true, want: settle},
		"without a key the CA may end before the leaf was said to": {caLife: time.Minute, leafLife: time.Hour, lost: true, want: time.Minute - settle/10},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			signing := newCAOf(test.caLife)
			s := leaf(signing, test.leafLife)
			r := rotation{Phase: PhaseSettle, Since: now, Signing: signing, Next: newCAOf(time.Hour)}
			if test.lost {
				r.Signing.Key = nil
			}
			if due := r.due(s).Sub(now); due != test.want {
				t.Errorf("settling ends after %s, want %s", due, test.want)
			}
			if test.want > 0 {
				s.now = now.Add(test.want - time.Second)
				if next, _, err := r.step(s); err != nil || next.Phase != PhaseSettle {
					t.Errorf("a second before it is in phase %s: %v", next.Phase, err)
				}
			}
			s.now = now.Add(test.want)
			if next, _, err := r.step(s); err != nil || next.Phase != PhaseActivate {
				t.Errorf("then it is in phase %s: %v", next.Phase, err)
			}
		})
	}
}
