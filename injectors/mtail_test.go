package injectors

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The programs of this file were given to mtail 3.0.0~rc50 with --compile_only, which takes and refuses the same.

func TestCheckMtailAccepts(t *testing.T) {
	tests := map[string]string{
		"counters, keys, histograms and named groups": `
counter requests by method, code
histogram latency by method buckets 0.1, 0.5, 1, 5 as "request_seconds"
/^(?P<method>[A-Z]+) (?P<code>\d{3}) (?P<seconds>[0-9.]+)$/ {
  requests[$method][$code]++
  latency[$method] = $seconds
}
`,
		"else, nested conditions and comments on lines of their own": `
counter errors
counter lines
# every line
/$/ {
  lines++
}
/ERROR/ {
  errors++
} else {
  /WARN/ {
    lines += 1
  }
}
`,
		"pattern constants joined over lines, time, del and stop": `
const DATE /(?P<date>\d{4}-\d\d-\d\d)/
const SP /\s+/
gauge last_seen by date
hidden text user
/^/ + DATE + SP +
/(?P<u>\w+)/ {
  strptime($date, "2006-01-02")
  user = $u
  last_seen[$date] = timestamp()
  del last_seen[$date] after 24h
}
user == "root" {
  stop
}
`,
		"a decorator whose groups what it decorates sees": `
def syslog {
  /^(?P<date>\w+\s+\d+\s+\d+:\d+:\d+)\s+(?P<app>\w+)/ {
    strptime($date, "Jan _2 15:04:05")
    next
  }
}
counter apps by app
@syslog {
  apps[$app]++
  otherwise {
    apps["none"]++
  }
}
`,
		"every operator": `
counter bytes
gauge g
timer t
/(\d+) (-?\d+\.\d+)/ {
  $1 > 5 && $2 < 3.5 || $1 == 0 {
    bytes += $1 * 2 - 1 + (3 ** 2) % 4
    g = $1 << 2 | 3 & 1 ^ 7
  }
  t = float($2)
  bytes--
}
`,
		"matches of groups and functions": `
counter a
text s
/(?P<x>\S+) (?P<y>\S+)/ && $x != "-" {
  $y =~ /^foo(?P<z>bar)?/ {
    a += len($z)
  } else {
    a++
  }
  $y !~ /zz/ {
    s = subst(/a/, "b", tolower($x))
  }
  s = string(int($x))
  getfilename() =~ /access/ {
    a += strtol($x, 16)
  }
}
`,
		"a pattern constant as a condition": `
const IP /(?P<ip>\d+\.\d+)/
counter n by ip
IP {
  n[$ip]++
}
`,
		"quoted names, a limit and an escaped slash": `
counter "urls" by "kind-1", host limit 10
/a\/b "(c)" # (d)/ {
  urls[$1, $2]++
}
`,
	}
	for name, program := range tests {
		t.Run(name, func(t *testing.T) {
			if got := checkMtail(program); len(got) > 0 {
				t.Errorf("checkMtail() = %v, want nothing", got)
			}
		})
	}
}

func TestCheckMtailRefuses(t *testing.T) {
	tests := map[string]struct {
		program string
		want    []string
	}{
		"a metric that is not declared": {
			program: "/x/ {\n  hits++\n}\n",
			want:    []string{"line 2: hits is not declared: write counter hits, or const hits /…/, before it"},
		},
		"what is declared and never used": {
			program: "counter hits\nconst A /a/\ndef d {\n  /x/ {\n    next\n  }\n}\n",
			want: []string{
				"line 1: the metric hits is never used", "line 2: the pattern constant A is never used",
				"line 3: the decorator d is never used",
			},
		},
		"a second declaration": {
			program: "counter hits\ngauge hits\n/x/ {\n  hits++\n}\n",
			want:    []string{"line 2: the metric hits is declared in line 1 already"},
		},
		"groups that no pattern in scope has": {
			program: "counter hits by a\n/(x)/ {\n  hits[$2]++\n}\n/(?P<b>x)/ {\n  hits[$a]++\n}\n",
			want: []string{
				"line 3: no pattern in scope has the capture group $2", "line 6: no pattern in scope has the capture group $a",
			},
		},
		"too few keys and too many": {
			program: "counter hits by a, b\n/(x)/ {\n  hits[$1]++\n  hits[$1, $1, $1]++\n  hits++\n}\n",
			want: []string{
				"line 3: the metric hits is declared by 2 keys, and used here with 1",
				"line 4: the metric hits is declared by 2 keys, and used here with 3",
				"line 5: the metric hits is declared by 2 keys, and used here with 0",
			},
		},
		"a regular expression that does not compile": {
			program: "counter hits\n/(x/ {\n  hits++\n}\n",
			want:    []string{"line 2: error parsing regexp: missing closing ): `(x`"},
		},
		"a regular expression without its end": {
			program: "counter hits\n/x {\n  hits++\n}\n",
			want:    []string{"line 2: the pattern /x { has no closing / on its line"},
		},
		"a regular expression that is too long": {
			program: "counter hits\n/" + strings.Repeat("x", 1025) + "/ {\n  hits++\n}\n",
			want:    []string{"line 2: a pattern of 1025 bytes: mtail takes 1024"},
		},
		"two patterns in one condition": {
			program: "counter hits\n/(x)/ {\n  $1 =~ /a/ && $1 =~ /b/ {\n    hits++\n  }\n}\n",
			want:    []string{"line 3: a second pattern in the same condition: mtail takes one, nest the other in a block"},
		},
		"a pattern as an operand": {
			program: "counter hits\n/a/ && /b/ {\n  hits++\n}\n",
			want:    []string{"line 2: a pattern cannot stand here: write $0 =~ /…/, or begin the condition with it"},
		},
		"a block on one line": {
			program: "counter hits\n/a/ { hits++ }\n",
			want:    []string{`line 2: "}" where the end of the line is expected after a statement`},
		},
		"a comment behind a statement": {
			program: "counter hits\n/a/ {\n  hits++ # one\n}\n",
			want:    []string{"line 3: a comment behind a statement swallows the end of its line: put it on a line of its own"},
		},
		"else on a line of its own": {
			program: "counter hits\n/a/ {\n  hits++\n}\nelse {\n}\n",
			want:    []string{"line 5: else must follow the } of its block on the same line"},
		},
		"a block without its end": {
			program: "counter hits\n/a/ {\n  hits++\n",
			want:    []string{"line 2: the block that begins here has no closing }"},
		},
		"a condition that compares nothing": {
			program: "counter hits\n/(a)/ {\n  $1 {\n    hits++\n  }\n}\n",
			want:    []string{"line 3: this is no condition: compare it with something, or match it by =~"},
		},
		"buckets of a counter and a histogram without": {
			program: "counter hits buckets 1, 2\nhistogram sizes\nhistogram times buckets 2, 1\n" +
				"/(\\d+)/ {\n  hits++\n  sizes = $1\n  times = $1\n}\n",
			want: []string{
				"line 1: buckets are for histograms, and hits is a counter",
				"line 2: the histogram sizes wants buckets with two boundaries or more", "line 3: the buckets of times must rise",
			},
		},
		"text that is counted and a number that is assigned to": {
			program: "text hits\n/(\\d+)/ {\n  hits++\n  $1 = 2\n}\n",
			want:    []string{"line 3: hits is text, which ++ cannot count", "line 4: only a metric can be assigned to"},
		},
		"del of a metric without keys": {
			program: "counter hits\n/x/ {\n  del hits\n}\n",
			want:    []string{"line 3: del wants a metric with its keys, such as del requests[$user]"},
		},
		"a duration in days": {
			program: "counter hits by a\n/(x)/ {\n  del hits[$1] after 2d\n}\n",
			want:    []string{`line 3: "2d" is not a duration that mtail reads; the units of a duration are h, m and s`},
		},
		"a function with too many arguments": {
			program: "counter hits\n/(x)/ {\n  hits += len($1, 2)\n}\n",
			want:    []string{"line 3: len takes 1 arguments, not 2"},
		},
		"a time layout that is not Go's": {
			program: "counter hits\n/(x)/ {\n  strptime($1, \"2006_01_02\")\n  hits++\n}\n",
			want:    []string{`line 3: "2006_01_02" is no time layout of Go, such as "2006-01-02 15:04:05"`},
		},
		"a decorator that is not defined": {
			program: "counter hits\n@syslog {\n  hits++\n}\n",
			want:    []string{"line 2: the decorator @syslog is not defined: write def syslog { … next … } before it"},
		},
		"a decorator without next, and next outside of one": {
			program: "counter hits\ndef d {\n  /x/ {\n    hits++\n  }\n}\n@d {\n}\nnext\n",
			want: []string{
				"line 2: the decorator d has no next, in the place of what it decorates",
				"line 9: next stands outside of a decorator's def",
			},
		},
		"a constant in a pattern that is not declared, and a metric": {
			program: "counter hits\n/a/ + B {\n  hits++\n}\n/a/ + hits {\n}\n",
			want: []string{
				"line 2: B is not declared: write const B /…/ before it", "line 5: the metric hits cannot be a part of a pattern",
			},
		},
		"another language": {
			program: "if (x) then y;\n",
			want: []string{
				`line 1: "(" where the end of the line is expected after a statement`,
				"line 1: if is not declared: write counter if, or const if /…/, before it",
			},
		},
		"a string without its end": {
			program: "counter hits as \"x\n",
			want:    []string{`line 1: the string "x has no closing " on its line`},
		},
		"parentheses without an end": {
			program: strings.Repeat("(", 5000),
			want:    []string{"line 1: more than 500 blocks and parentheses in each other"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, problem := range checkMtail(test.program) {
				got = append(got, problem.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("checkMtail() (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzCheckMtail(f *testing.F) {
	f.Add("counter a by b\n/(?P<b>x)/ {\n  a[$b]++\n}\n")
	f.Add("def d {\n  /x/ {\n    next\n  }\n}\n@d {\n  stop\n}\n")
	f.Add("const A /a/ +\n/b/\nA + /c/ && $0 =~ \"x\" {\n}\n")
	f.Add("del a[1.5e3, -2] after 5m\nx = ~1 ** (2) # \"")
	f.Fuzz(func(t *testing.T, program string) {
		lines := strings.Count(program, "\n") + 1
		for _, problem := range checkMtail(program) {
			if problem.line < 1 || problem.line > lines || problem.message == "" {
				t.Errorf("%q: problem %+v of %d lines", program, problem, lines)
			}
		}
	})
}
