// Package chart holds Pillion's chart, and deploy/ that is rendered from it, to a real API server: what is rendered applies, is
// let in where Pod Security restricted is enforced, fills, upgrades, and leaves the cluster clean.
package chart
