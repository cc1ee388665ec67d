package weave

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

type (
	// hostEntry is one line of what /etc/hosts gains: addresses and names are compared as they are written.
	hostEntry struct{ address, name string }
	// hostSide is an address of a host name, and who gives it.
	hostSide struct{ address, owner string }
)

// collidingHostAliases finds host names that the Pod, or a Fragment that was taken, gives another address, be it beside the same
// one: of the lines of /etc/hosts the first wins, and of two families the one that a program prefers. Several addresses of a name
// are no collision where both sides have them all.
func (w *Weaver) collidingHostAliases(fragment *Fragment) []Problem {
	if len(fragment.HostAliases) == 0 {
		return nil
	}
	var problems []Problem
	sides, addresses := w.hostSides(), hostAddresses(fragment.HostAliases)
	for _, alias := range fragment.HostAliases {
		for _, name := range alias.Hostnames {
			present := sides[name]
			if len(present) == 0 {
				continue
			}
			other := 0
			if slices.ContainsFunc(present, func(side hostSide) bool { return side.address == alias.IP }) {
				other = slices.IndexFunc(present, func(side hostSide) bool { return !slices.Contains(addresses[name], side.address) })
			}
			if other >= 0 {
				problems = append(problems, collision(ReasonHostAliasCollision, fragment,
					"gives the host %s the address %s, and %s gives it %s; let both give it one address, or rename one of them",
					name, alias.IP, present[other].owner, present[other].address))
			}
		}
	}
	return problems
}

// hostSides returns the addresses of every host name of the Pod and the Fragments that were taken.
func (w *Weaver) hostSides() map[string][]hostSide {
	sides := map[string][]hostSide{}
	note := func(aliases []corev1.HostAlias, owner string) {
		for _, alias := range aliases {
			for _, name := range alias.Hostnames {
				sides[name] = append(sides[name], hostSide{alias.IP, owner})
			}
		}
	}
	note(w.pod.Spec.HostAliases, ownerPod)
	for i := range w.fragments {
		note(w.fragments[i].HostAliases, "profile "+w.fragments[i].Profile)
	}
	return sides
}

// hostAddresses returns the addresses of every host name.
func hostAddresses(aliases []corev1.HostAlias) map[string][]string {
	addresses := map[string][]string{}
	for _, alias := range aliases {
		for _, name := range alias.Hostnames {
			addresses[name] = append(addresses[name], alias.IP)
		}
	}
	return addresses
}

// hostEntries returns what the Pod has.
func hostEntries(pod *corev1.Pod) map[hostEntry]bool {
	entries := map[hostEntry]bool{}
	for _, alias := range pod.Spec.HostAliases {
		for _, name := range alias.Hostnames {
			entries[hostEntry{alias.IP, name}] = true
		}
	}
	return entries
}

// addHostAliases adds the host names that the Pod does not have: to the first alias of their address, or to a new one.
func (p *patch) addHostAliases(pod *corev1.Pod, fragments []taken) {
	addresses, names := missingHosts(pod, fragments)
	if len(addresses) == 0 {
		return
	}
	aliases := slices.Clone(pod.Spec.HostAliases)
	var added []corev1.HostAlias
	for _, address := range addresses {
		i := slices.IndexFunc(aliases, func(alias corev1.HostAlias) bool { return alias.IP == address })
		if i < 0 {
			added = append(added, corev1.HostAlias{IP: address, Hostnames: names[address]})
			continue
		}
		path := "/spec/hostAliases/" + strconv.Itoa(i) + "/hostnames"
		aliases[i].Hostnames = appendTo(p, path, aliases[i].Hostnames, names[address])
	}
	pod.Spec.HostAliases = appendTo(p, "/spec/hostAliases", aliases, added)
}

// missingHosts returns the addresses with names that the Pod does not have, in the order in which they come first, and the names.
func missingHosts(pod *corev1.Pod, fragments []taken) (addresses []string, names map[string][]string) {
	var there map[hostEntry]bool
	for i := range fragments {
		for _, alias := range fragments[i].HostAliases {
			if there == nil {
				there, names = hostEntries(pod), map[string][]string{}
			}
			for _, name := range alias.Hostnames {
				if there[hostEntry{alias.IP, name}] {
					continue
				}
				there[hostEntry{alias.IP, name}] = true
				if names[alias.IP] == nil {
					addresses = append(addresses, alias.IP)
				}
				names[alias.IP] = append(names[alias.IP], name)
			}
		}
	}
	return addresses, names
}
