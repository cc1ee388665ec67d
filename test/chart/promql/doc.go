// Package promql holds the expressions of the chart's alerts and of its dashboard to Prometheus' own engine. It is a module of
// its own, for Prometheus comes with much that nothing else here needs.
package promql
