package weave

// AllPorts returns every port that the containers of the Fragment listen on, each once: those that are declared, and Ports.
func (f *Fragment) AllPorts() []Port { return portsOf(f) }
