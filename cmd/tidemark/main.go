// Tidemark is a durable journal broker that speaks the Kafka wire protocol, and its clients, in one binary.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/term"
)

// CLI is the root of the command line: one field per command, each in its own file.
type CLI struct {
	Serve   ServeCmd   `cmd:"" help:"Run a node."`
	Topic   TopicCmd   `cmd:"" help:"Create, list, describe and delete topics."`
	Produce ProduceCmd `cmd:"" help:"Write lines to a topic at a chosen durability level."`
	Consume ConsumeCmd `cmd:"" help:"Print a topic's records."`
	Group   GroupCmd   `cmd:"" help:"Consumer groups: list, describe, reset and delete them."`
	Qos     QosCmd     `cmd:"" help:"Policies: what each client's requests must survive and may cost."`
	Journal JournalCmd `cmd:"" help:"Look at a stopped node's journal."`
	Bench   BenchCmd   `cmd:"" help:"Measure a broker."`
	Profile ProfileCmd `cmd:"" help:"Show where the time of a running node's acknowledgements goes."`
	Watch   WatchCmd   `cmd:"" help:"Look at a running node: watermarks, rates, times, clients."`
	Version VersionCmd `cmd:"" help:"Print version, Go version and platform."`
}

const description = `A durable journal broker that speaks the Kafka wire protocol.

  tidemark serve
  tidemark topic create orders --partitions 4
  tidemark produce orders lines.txt --qos persistence
  tidemark consume orders --from earliest --follow
  tidemark group describe billing
  tidemark bench produce --connections 64

Every client command takes --bootstrap, or TIDEMARK_BOOTSTRAP.`

// env is what a command may touch of the world outside its flags. Every command's Run takes it.
type env struct {
	ctx    context.Context // done at the first SIGINT or SIGTERM; the second one kills
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// stderrIsTerminal says whether a person sees progress as it is written.
func (e *env) stderrIsTerminal() bool {
	f, ok := e.stderr.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // else a closed pipe ends the process before it can leave its group
	os.Exit(run(&env{ctx: ctx, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}, os.Args[1:]))
}

// run parses args, runs the command and returns the exit code, having said on stderr what went wrong.
func run(e *env, args []string) int {
	var cli CLI
	kctx, code := parse(e, &cli, args)
	if kctx == nil {
		return code
	}
	return report(e, kctx.Run())
}

// parse fills cli from args. Without a context the program ends with the code: --help was asked for, or args are wrong and stderr says how.
func parse(e *env, cli *CLI, args []string) (*kong.Context, int) {
	helped := false
	parser, err := kong.New(cli,
		kong.Name("tidemark"),
		kong.Description(description),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoAppDescFormat: true, WrapUpperBound: 110}),
		kong.Help(printHelp),
		kong.Writers(e.stdout, e.stderr),
		kong.Exit(func(int) { helped = true }),
		kong.Bind(e),
	)
	if err != nil {
		return nil, report(e, fmt.Errorf("command line definition: %w", err))
	}
	kctx, err := parser.Parse(args)
	switch {
	case helped: // what follows --help does not matter
		return nil, exitOK
	case err != nil:
		return nil, report(e, usageErrorf("%w (see \"%s --help\")", err, commandOf(parser, args)))
	}
	return kctx, exitOK
}

// report says what went wrong, if anything did, and returns the exit code.
func report(e *env, err error) int {
	if err != nil && exitCode(err) != exitPipe { // who closed the pipe has seen enough
		fmt.Fprintf(e.stderr, "tidemark: %s\n", oneLine(err))
	}
	return exitCode(err)
}

// commandOf is the command path at the start of args, for a pointer to its help.
func commandOf(parser *kong.Kong, args []string) string {
	path, node := "tidemark", parser.Model.Node
	for _, arg := range args {
		var next *kong.Node
		for _, child := range node.Children {
			if child.Name == arg {
				next = child
			}
		}
		if next == nil {
			break
		}
		path, node = path+" "+arg, next
	}
	return path
}

func printHelp(options kong.HelpOptions, kctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, kctx); err != nil {
		return err
	}
	if kctx.Selected() == nil {
		fmt.Fprintf(kctx.Stdout, "\n%s", exitHelp())
	}
	return nil
}

// oneLine keeps an error message on one line: joined errors and brokers' messages may have several.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
