package injectors

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/pillion-dev/pillion/expressions"
)

// unknownYet are the fields of a Pod's metadata that the API server sets after admission.
var unknownYet = []string{"name", "uid", "creationTimestamp", "resourceVersion"}

var (
	errStaticName = errors.New("holds no expression: what a profile adds must be known before a Pod is; write the name itself")
	errStaticPart = errors.New("holds no expression as a whole: write what it consists of, and expressions in its values; " +
		"what yields null is left out")
	errStaticKeys = errors.New("holds no expression as a whole: its keys must be known before a Pod is")
	errUnknownYet = errors.New("reads what the API server sets only when the Pod has been admitted: let the container read it " +
		"through env with valueFrom.fieldRef, or a downwardAPI volume")
	errShellLine = errors.New("is, or precedes, what a shell runs and holds an expression: pass the value as an argument behind " +
		"the script, where it is $1, or as an environment variable")
)

// places knows of each place of a template whether there may be an expression, and notes whether there is one.
type places struct {
	document any
	// hasExpressions is set once an expression was found.
	hasExpressions bool
}

// hasExpression tells whether an expression begins in a text.
func hasExpression(text string) bool {
	return strings.Contains(strings.ReplaceAll(text, "$${", ""), "${")
}

// checkExpression is the Check of expressions.TemplateOptions.
func checkExpression(expression *expressions.Expression) error {
	for _, name := range unknownYet {
		if expression.Selects("pod", "metadata", name) {
			return errUnknownYet
		}
	}
	return nil
}

// rules is the Rules of expressions.TemplateOptions.
func (p *places) rules(keys []string) (expressions.LeafRules, error) {
	p.hasExpressions = true
	if len(keys) == 0 {
		return expressions.LeafRules{}, errStaticPart
	}
	switch keys[0] {
	case "containers", "initContainers", "app":
		if len(keys) <= 2 {
			return expressions.LeafRules{}, errStaticPart
		}
		return p.ofContainer(keys)
	case "volumes":
		if len(keys) <= 2 {
			return expressions.LeafRules{}, errStaticPart
		}
		if len(keys) == 3 && keys[2] == "name" {
			return expressions.LeafRules{}, errStaticName
		}
	case "labels", "annotations":
		if len(keys) == 1 {
			return expressions.LeafRules{}, errStaticKeys
		}
	}
	return expressions.LeafRules{}, nil
}

// ofContainer returns the rules of a place in a container or in what containers of the app gain. The kubelet expands $(NAME) in
// command, args, env, subPathExpr and the commands of probes, but not in those of lifecycle hooks.
func (p *places) ofContainer(keys []string) (expressions.LeafRules, error) {
	container, within := keys[:2], pattern(keys[2:])
	switch within {
	case "name", "containers", "containers.*":
		return expressions.LeafRules{}, errStaticName
	case "restartPolicy", "command", "args", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle",
		"livenessProbe.exec", "readinessProbe.exec", "startupProbe.exec", "lifecycle.postStart", "lifecycle.preStop",
		"lifecycle.postStart.exec", "lifecycle.preStop.exec",
		"livenessProbe.exec.command", "readinessProbe.exec.command", "startupProbe.exec.command",
		"lifecycle.postStart.exec.command", "lifecycle.preStop.exec.command":
		return expressions.LeafRules{}, errStaticPart
	case "command.*", "args.*":
		command := p.textsAt(append(slices.Clone(container), "command"))
		line, at := slices.Concat(command, p.textsAt(append(slices.Clone(container), "args"))), index(keys)
		if within == "args.*" {
			at += len(command)
		}
		return expressions.LeafRules{DoubleDollar: true, NoLeadingDash: true}, checkShellLine(line, at)
	case "livenessProbe.exec.command.*", "readinessProbe.exec.command.*", "startupProbe.exec.command.*":
		line := p.textsAt(keys[:len(keys)-1])
		return expressions.LeafRules{DoubleDollar: true, NoLeadingDash: true}, checkShellLine(line, index(keys))
	case "lifecycle.postStart.exec.command.*", "lifecycle.preStop.exec.command.*":
		return expressions.LeafRules{NoLeadingDash: true}, checkShellLine(p.textsAt(keys[:len(keys)-1]), index(keys))
	case "env", "env.*", "env.*.value", "volumeMounts.*.subPathExpr":
		return expressions.LeafRules{DoubleDollar: true}, nil
	case "volumeMounts", "volumeMounts.*":
		return expressions.LeafRules{DoubleDollarIn: "subPathExpr"}, nil
	}
	return expressions.LeafRules{}, nil
}

// pattern joins keys by dots, with an asterisk for each index.
func pattern(keys []string) string {
	names := slices.Clone(keys)
	for i := range names {
		if _, err := strconv.Atoi(names[i]); err == nil {
			names[i] = "*"
		}
	}
	return strings.Join(names, ".")
}

// index is the last of the keys, an index.
func index(keys []string) int {
	at, _ := strconv.Atoi(keys[len(keys)-1])
	return at
}

func valueAt(value any, keys []string) any {
	for _, key := range keys {
		switch parent := value.(type) {
		case map[string]any:
			value = parent[key]
		case []any:
			at, err := strconv.Atoi(key)
			if err != nil || at < 0 || at >= len(parent) {
				return nil
			}
			value = parent[at]
		default:
			return nil
		}
	}
	return value
}

// textsAt returns the strings of a list.
func (p *places) textsAt(keys []string) []string {
	return textsOf(valueAt(p.document, keys))
}

// textsOf returns the strings of a list, with "" for what is none.
func textsOf(value any) []string {
	list, _ := value.([]any)
	texts := make([]string, len(list))
	for i := range list {
		texts[i], _ = list[i].(string)
	}
	return texts
}

// shells are the programs that run what follows -c.
var shells = []string{"sh", "bash", "rbash", "ash", "dash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "hush"}

// checkShellLine refuses an expression at an index of a command line that a shell would run or take for an option.
func checkShellLine(line []string, at int) error {
	if inShellLine(line, at) {
		return errShellLine
	}
	return nil
}

// inShellLine tells whether what is at an index of a command line is run by a shell, taken for its option, or split into a
// command line of its own. A shell behind another program, as in "tini -- sh -c", counts only if it has -c: grep may look for
// the word sh.
func inShellLine(line []string, at int) bool {
	for i := range min(at, len(line)) {
		name, certain := programName(line[i])
		if name == "env" && certain && isSplit(line[i+1:], at-i-1) {
			return true
		}
		if !slices.Contains(shells, name) && (certain || i > 0) {
			continue
		}
		end, runsText := shellScript(line[i+1:])
		if at <= i+1+end && (runsText || i == 0 && certain) {
			return true
		}
	}
	return false
}

// isSplit tells whether what is at an index of the arguments of env is a command line, which env splits at spaces, or is in
// what a shell that is named there runs.
func isSplit(arguments []string, at int) bool {
	for i := 0; i <= at; i++ {
		argument := arguments[i]
		isShort := strings.HasPrefix(argument, "-") && !strings.HasPrefix(argument, "--")
		line, isLine := strings.CutPrefix(argument, "--split-string=")
		switch {
		case argument == "--split-string" || isShort && strings.HasSuffix(argument, "S"):
			if at <= i+1 {
				return true
			}
			return inSplitLine(arguments[i+1], arguments[i+2:], at-i-2)
		case isLine || isShort && (strings.Contains(argument, "S") || hasExpression(argument)):
			if at == i {
				return true
			}
			_, short, _ := strings.Cut(argument, "S")
			return inSplitLine(line+short, arguments[i+1:], at-i-1)
		case isShort && strings.ContainsAny(argument[len(argument)-1:], "uC"):
			i++ // which has an argument of its own
		case !strings.HasPrefix(argument, "-") && !strings.Contains(argument, "=") && !hasExpression(argument):
			return false // from here on it is the program's
		}
	}
	return false
}

// inSplitLine is inShellLine of what is behind a command line that env splits.
func inSplitLine(line string, behind []string, at int) bool {
	words := strings.Fields(line)
	return inShellLine(slices.Concat(words, behind), len(words)+at)
}

// programName returns the last part of a program's path, and whether it is known without the values of expressions.
func programName(text string) (string, bool) {
	behind := text
	if strings.Contains(text, "${") {
		behind = text[strings.LastIndex(text, "}")+1:]
		if !strings.Contains(behind, "/") {
			return "", false
		}
	}
	return behind[strings.LastIndex(behind, "/")+1:], true
}

// shellScript returns the index of the script among a shell's arguments, and whether it is the text of one: behind -c, also
// as in -ec, and behind what takes an argument of its own.
func shellScript(arguments []string) (end int, runsText bool) {
	for end = 0; end < len(arguments); end++ {
		argument := arguments[end]
		switch {
		case argument == "--" || argument == "-":
			return end + 1, runsText
		case argument == "--rcfile" || argument == "--init-file":
			end++
		case strings.HasPrefix(argument, "--"):
			name, _, _ := strings.Cut(argument, "=")
			runsText = runsText || name == "--command" || name == "--init-command"
		case strings.HasPrefix(argument, "-") || strings.HasPrefix(argument, "+"):
			runsText = runsText || strings.ContainsAny(argument, "cC")
			if strings.HasSuffix(argument, "o") || strings.HasSuffix(argument, "O") {
				end++
			}
		default:
			return end, runsText
		}
	}
	return end, runsText
}
