// Package cli is what the commands share: the option grammar of getopt_long on
// top of urfave/cli, mount options, sizes, questions, exit codes, and messages.
//
// A command is defined by a Command, whose flags, help and completion are
// urfave/cli's. Its Main first puts the arguments into the plain form that
// urfave/cli reads ("--name=value", options first, "--", operands), so that
// what people and scripts are used to write for the e2fsprogs tool of that name
// is understood: bundled letters, attached values, options after operands, and
// long names cut short.
//
//	var cmd = cli.Command{Name: "tool", Args: "device", Flags: flags, Action: action}
//	func main() { os.Exit(cmd.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
package cli
