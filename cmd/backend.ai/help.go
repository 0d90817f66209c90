package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manual is what the help of a command tells beside its description and options.
type manual struct {
	arguments [][2]string // name and meaning
	examples  [][2]string // what for, and the command line
	exits     [][2]string // codes beside the common ones, and their meaning
}

const (
	sectionArguments = "arguments"
	sectionExits     = "exits"
	sectionGroup     = "group" // the command only has commands below it
	lineWidth        = 80
	optionColumn     = 26 // where the meaning of an option begins
)

// document puts a manual on a command.
func document(cmd *cobra.Command, m manual) *cobra.Command {
	cmd.Annotations = map[string]string{sectionArguments: encode(m.arguments), sectionExits: encode(m.exits)}
	var examples []string
	for _, x := range m.examples {
		examples = append(examples, "# "+x[0]+"\n"+x[1])
	}
	cmd.Example = strings.Join(examples, "\n\n")
	return cmd
}

// encode keeps pairs in one annotation; neither half has tabs or line ends.
func encode(pairs [][2]string) string {
	var b strings.Builder
	for _, p := range pairs {
		b.WriteString(p[0] + "\t" + p[1] + "\n")
	}
	return b.String()
}

func decode(text string) (pairs [][2]string) {
	for line := range strings.Lines(text) {
		name, meaning, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		pairs = append(pairs, [2]string{name, meaning})
	}
	return pairs
}

func isGroup(cmd *cobra.Command) bool { return cmd.Annotations[sectionGroup] != "" }

// usageLine is how a command is called.
func usageLine(cmd *cobra.Command) string {
	line := cmd.CommandPath()
	name, arguments, _ := strings.Cut(cmd.Use, " ")
	if isGroup(cmd) {
		return line + " COMMAND"
	}
	line = strings.TrimSuffix(line, name) + name
	if cmd.HasAvailableLocalFlags() {
		line += " [options]"
	}
	return strings.TrimSpace(line + " " + arguments)
}

// writeHelp writes the complete manual of a command.
func writeHelp(w io.Writer, cmd *cobra.Command) error {
	var b strings.Builder
	b.WriteString("Usage: " + usageLine(cmd) + "\n")
	if len(cmd.Aliases) > 0 {
		b.WriteString("Also called: " + strings.Join(cmd.Aliases, ", ") + "\n")
	}
	for paragraph := range strings.SplitSeq(strings.TrimSpace(cmp.Or(cmd.Long, cmd.Short)), "\n\n") {
		b.WriteString("\n")
		writeParagraph(&b, paragraph)
	}
	var commands [][2]string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			name := sub.Name()
			if len(sub.Aliases) > 0 {
				name += " (" + strings.Join(sub.Aliases, ", ") + ")"
			}
			commands = append(commands, [2]string{name, sub.Short})
		}
	}
	writePairs(&b, "Commands", commands)
	writePairs(&b, "Arguments", decode(cmd.Annotations[sectionArguments]))
	writePairs(&b, "Options", options(cmd.NonInheritedFlags()))
	if !cmd.DisableFlagParsing { // else they are another program's
		writePairs(&b, "Global options", options(cmd.InheritedFlags()))
	}
	if cmd.Example != "" {
		b.WriteString("\nExamples:\n")
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			b.WriteString(strings.TrimRight("  "+strings.TrimPrefix(line, "  "), " ") + "\n")
		}
	}
	if !isGroup(cmd) {
		exits := [][2]string{{"0", "it succeeded"}, {"1", "it failed; the reason is on standard error"}, {"2", "the command line is wrong"}}
		exits = append(exits, decode(cmd.Annotations[sectionExits])...)
		exits = append(exits, [2]string{"130, 143", "it was ended by Ctrl+C or by SIGTERM"})
		writePairs(&b, "Exit codes", exits)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeParagraph wraps a paragraph, or leaves it alone when it is indented.
func writeParagraph(b *strings.Builder, paragraph string) {
	if strings.HasPrefix(paragraph, "  ") {
		b.WriteString(paragraph + "\n")
		return
	}
	for _, line := range wrap(paragraph, lineWidth) {
		b.WriteString(line + "\n")
	}
}

// writePairs writes a section of names and their meanings in two columns.
func writePairs(b *strings.Builder, title string, pairs [][2]string) {
	if len(pairs) == 0 {
		return
	}
	column := 0
	for _, p := range pairs {
		column = max(column, min(len(p[0])+4, optionColumn))
	}
	b.WriteString("\n" + title + ":\n")
	for _, p := range pairs {
		line := "  " + p[0]
		for i, text := range wrap(p[1], lineWidth-column) {
			if i > 0 || len(line)+2 > column {
				if i == 0 {
					b.WriteString(line + "\n")
				}
				line = ""
			}
			b.WriteString(line + strings.Repeat(" ", column-len(line)) + text + "\n")
		}
	}
}

// wrap breaks a text at spaces into lines of at most width.
func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

// options are the flags of a set with their defaults.
func options(flags *pflag.FlagSet) (pairs [][2]string) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, meaning := pflag.UnquoteUsage(f)
		name := "    --" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", --" + f.Name
		}
		if f.Value.Type() != "bool" {
			name += " " + cmp.Or(value, "VALUE")
		}
		if f.Value.Type() == "stringArray" {
			meaning += "; may be given several times"
		}
		switch f.DefValue {
		case "", "false", "[]", "0":
		default:
			meaning += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		pairs = append(pairs, [2]string{name, meaning})
	})
	return pairs
}

// newHelpCommand is the spelled-out form of -h.
func newHelpCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "help [COMMAND…]",
		Short: "Show the manual of a command",
		Long:  "Shows the manual of a command, the same as the option -h of that command does.",
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("there is no command %q", strings.Join(args, " "))
			}
			return writeHelp(cmd.OutOrStdout(), target)
		},
	}
	return document(cmd, manual{
		arguments: [][2]string{{"COMMAND", "the command, by all its words; without it the list of all commands is shown"}},
		examples:  [][2]string{{"How is a session started?", "backend.ai help start"}},
	})
}
