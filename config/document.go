package config

import (
	"fmt"
	"strings"
)

// The sections of the document.
const (
	everyCommand   = "For every command"
	bothProcesses  = "For the webhook and the controller"
	webhookOnly    = "For the webhook"
	controllerOnly = "For the controller"
)

func (k key) section() string {
	switch ofWebhook, ofController := k.isOf([]Group{WebhookServer}), k.isOf([]Group{ControllerManager}); {
	case ofWebhook && ofController:
		return bothProcesses
	case ofWebhook:
		return webhookOnly
	case ofController:
		return controllerOnly
	default:
		return everyCommand
	}
}

// Document returns docs/configuration.md: all keys, their flags, variables and defaults.
func Document() string {
	var b strings.Builder
	b.WriteString(documentHead)
	for _, title := range []string{everyCommand, bothProcesses, webhookOnly, controllerOnly} {
		fmt.Fprintf(&b, "\n## %s\n\n%s", title, tableHead)
		for _, key := range keys() {
			if key.section() == title {
				fmt.Fprintf(&b, "| `%s` | `--%s`<br>`%s` | %s | %s (%s) |\n",
					key.path, key.flag(), key.variable(), key.documentedDefault(), sentence(key.usage), key.kind())
			}
		}
	}
	return b.String()
}

const tableHead = "| key in the file | flag and variable | default | meaning |\n|---|---|---|---|\n"

const documentHead = "<!-- Written by `go test ./config -update` from the table in config/keys.go. -->\n\n" +
	"# Configuration of Pillion's processes\n\n" +
	"Each value comes from the first of these that has it: a flag, an environment variable, the YAML file that `--config` or\n" +
	"`PILLION_CONFIG` names, the default. One file and one environment may serve all processes: each reads its part and accepts\n" +
	"the others'.\n\n" +
	"```yaml\nlogLevel: debug\nwebhook:\n  listenAddress: \":9443\"\n  liveReadTimeout: 500ms\n```\n\n" +
	"It is strict. A process does not start, and says all that is wrong at once, where a key, flag or `PILLION_` variable is\n" +
	"unknown, empty, given twice, of the wrong type or out of range; an empty list in the file, `[]`, is a value. Keys of the file\n" +
	"are case-sensitive. In flags and variables the items of a list are joined by commas. A list replaces that of the source\n" +
	"before it. The last of several flags counts, but those of a list add up. All is read at the start: restart a process whose\n" +
	"settings you change.\n\n" +
	"Variables that Kubernetes sets for a Service called `pillion-…`, such as `PILLION_WEBHOOK_SERVICE_HOST`, are passed over.\n"

func (k key) documentedDefault() string {
	text := k.text()
	if text == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(text, ",", ", ") + "`"
}

func sentence(usage string) string { return strings.ToUpper(usage[:1]) + usage[1:] }
