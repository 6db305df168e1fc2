package sdk

import "context"

// Main is the whole of a plugin's main: flags, the seccomp filter, signals, Run, exit code.
func Main(p Plugin) {}

// Run connects a plugin to the runtime and runs its controllers until ctx is done or the runtime has drained the plugin.
func Run(ctx context.Context, p Plugin) error { return nil }
