// Package docs holds what the documentation shows to a real API server with Pillion installed: every object applies, every workload
// gets the containers that it asks for, and a newcomer's commands do what the page says.
package docs
