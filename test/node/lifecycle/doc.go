// Package lifecycle installs Pillion on a real node, upgrades it, disturbs it in every way and takes it away again, while
// Pods are created all along. Its tests change the installation, so they run one after another. They are all that is in it.
package lifecycle
