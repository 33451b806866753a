package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"tidemark/qos"
	"tidemark/server"
)

// QosCmd groups the commands for policies.
type QosCmd struct {
	List    QosListCmd    `cmd:"" help:"List policies, the most special first."`
	Get     QosGetCmd     `cmd:"" help:"Show a policy as JSON."`
	Set     QosSetCmd     `cmd:"" help:"Make or change a policy."`
	Unset   QosUnsetCmd   `cmd:"" help:"Take a policy away."`
	Explain QosExplainCmd `cmd:"" help:"Say what policies mean for a request, and why."`
}

// QosListCmd is `tidemark qos list`.
type QosListCmd struct {
	AdminFlags `embed:""`
}

// Help is kong's detailed help.
func (QosListCmd) Help() string {
	return `Each setting of a request comes from the most special policy that matches it and says something of that setting: by principal first, then client
id, then topic; a name before a prefix, a longer prefix before a shorter one.

Example:

    tidemark qos list`
}

// Run lists.
func (c *QosListCmd) Run(e *env) error {
	raw, err := c.get(e, "/qos", 0)
	if err != nil {
		return err
	}
	var list []qos.Policy
	if err := json.Unmarshal(raw, &list); err != nil {
		return fmt.Errorf("admin listener %s: %w", c.Admin, err)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "POLICY\tFOR\tSAYS")
	for i := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\n", list[i].Name, list[i].Match(), strings.Join(list[i].Said(), " "))
	}
	return w.Flush()
}

// QosGetCmd is `tidemark qos get`.
type QosGetCmd struct {
	AdminFlags `embed:""`
	Name       string `arg:"" help:"Policy."`
}

// Run prints.
func (c *QosGetCmd) Run(e *env) error {
	if err := qos.CheckName(c.Name); err != nil {
		return usageErrorf("%w", err)
	}
	raw, err := c.get(e, policyPath(c.Name), 0)
	if err != nil {
		return err
	}
	_, err = e.stdout.Write(raw)
	return err
}

// QosUnsetCmd is `tidemark qos unset`.
type QosUnsetCmd struct {
	AdminFlags `embed:""`
	Name       string `arg:"" help:"Policy."`
}

// Run takes it away.
func (c *QosUnsetCmd) Run(e *env) error {
	if err := qos.CheckName(c.Name); err != nil {
		return usageErrorf("%w", err)
	}
	if _, _, err := c.do(e, http.MethodDelete, policyPath(c.Name), nil, nil, 0); err != nil {
		return err
	}
	_, err := fmt.Fprintf(e.stdout, "unset %s\n", c.Name)
	return err
}

// QosSetCmd is `tidemark qos set`. Its flags are texts, since each takes "none" as well.
type QosSetCmd struct {
	AdminFlags `embed:""`
	Name       string `arg:"" help:"Policy; made when there is none of this name."`

	Principal *string `help:"For these principals, like User:alice: a name, or a prefix that ends in *." placeholder:"P"`
	Client    *string `help:"For these client ids: a name, or a prefix that ends in *." placeholder:"P"`
	Topic     *string `help:"For these topics: a name, or a prefix that ends in *." placeholder:"P"`

	AcksOne     *string `name:"acks-1" help:"The level that acks=1 asks for." placeholder:"LEVEL"`
	AcksAll     *string `help:"The level that acks=-1 asks for." placeholder:"LEVEL"`
	Floor       *string `help:"Wait for at least this level's marks, whatever is asked for." placeholder:"LEVEL"`
	Ceiling     *string `help:"Wait for this level's marks at most." placeholder:"LEVEL"`
	Deadline    *string `help:"Answer within this time, if the request's own timeout is longer." placeholder:"D"`
	ProduceRate *string `help:"Bytes a second that each client id may write, like 5MiB/s." placeholder:"RATE"`
	FetchRate   *string `help:"Bytes a second that each client id may read." placeholder:"RATE"`
	RequestRate *string `help:"Requests a second that each client id may make, like 100/s." placeholder:"RATE"`
	InFlight    *string `help:"Bytes of requests that each client id may have unanswered, like 8MiB." placeholder:"BYTES"`
	Weight      *string `help:"Share of the write stage under load; others have 1." placeholder:"N"`
}

// Help is kong's detailed help.
func (QosSetCmd) Help() string {
	return `What is not named stays as it is; "none" takes a setting back. A new policy has to say whom it is for. It is durable and in force when the command returns: connections stay.

Examples:

    tidemark qos set orders --client "orders-*" --floor persistence --weight 4
    tidemark qos set batch --client loader --produce-rate 5MiB/s
    tidemark qos set batch --produce-rate none --in-flight 8MiB
    tidemark qos set audit --topic audit --floor all

A policy for a client goes before one for a topic: a client with a floor of its own keeps it in the topic audit. A deadline that is shorter than the
disk takes makes clients send again what may be written already: duplicates, unless they are idempotent.`
}

// none takes a setting back.
const none = "none"

// flags are the settings that the command line names, by the policy's field.
func (c *QosSetCmd) flags() map[string]*string {
	return map[string]*string{
		"principal": c.Principal, "client": c.Client, "topic": c.Topic, "acks_1": c.AcksOne, "acks_all": c.AcksAll, "floor": c.Floor, "ceiling": c.Ceiling, "deadline": c.Deadline,
		"produce_rate": c.ProduceRate, "fetch_rate": c.FetchRate, "request_rate": c.RequestRate, "in_flight": c.InFlight, "weight": c.Weight,
	}
}

// apply changes a policy's fields by the flags.
func (c *QosSetCmd) apply(fields map[string]any) (qos.Policy, error) {
	given := c.flags()
	for _, field := range slices.Sorted(maps.Keys(given)) {
		switch text := given[field]; {
		case text == nil:
		case *text == none:
			delete(fields, field)
		default:
			if _, err := qos.DecodePolicy(map[string]any{field: *text}); err != nil {
				return qos.Policy{}, usageErrorf("--%s: %w, or none", strings.ReplaceAll(field, "_", "-"), err)
			}
			fields[field] = *text
		}
	}
	return qos.DecodePolicy(fields)
}

// setTries bounds how often a change is tried again that somebody else's came before.
const setTries = 20

// Run sets.
func (c *QosSetCmd) Run(e *env) error {
	if err := qos.CheckName(c.Name); err != nil {
		return usageErrorf("%w", err)
	}
	for flag, v := range map[string]*string{"--principal": c.Principal, "--client": c.Client, "--topic": c.Topic} {
		if v != nil && *v == "" { // a variable of a script that is not set, say: the policy would be for everything
			return usageErrorf("%s: it is empty; \"*\" is every one, \"none\" takes it out of the policy", flag)
		}
	}
	if _, err := c.apply(map[string]any{}); err != nil { // before the node is asked
		return err
	}
	for range setTries {
		p, done, err := c.try(e)
		var refused *adminError
		if errors.As(err, &refused) && refused.status == http.StatusPreconditionFailed {
			continue // somebody was faster: what is not named is to stay as it is now
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(e.stdout, "%s %s for %s: %s\n", done, p.Name, p.Match(), strings.Join(p.Said(), " "))
		return err
	}
	return fmt.Errorf("policy %q changed %d times while it was to be set: try again", c.Name, setTries)
}

// try reads the policy, changes it, and writes it if it has not changed meanwhile.
func (c *QosSetCmd) try(e *env) (p qos.Policy, done string, err error) {
	path := policyPath(c.Name)
	raw, header, err := c.do(e, http.MethodGet, path, nil, nil, 0)
	var refused *adminError
	fields, still := map[string]any{}, http.Header{}
	switch {
	case errors.As(err, &refused) && refused.status == http.StatusNotFound:
		if c.Principal == nil && c.Client == nil && c.Topic == nil {
			return p, "", usageErrorf("there is no policy %q yet: say whom it is for with --client, --topic or --principal; --client \"*\" is everybody", c.Name)
		}
		fields["name"], done = c.Name, "made"
		still.Set("If-None-Match", "*")
	case err != nil:
		return p, "", err
	default:
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&fields); err != nil {
			return p, "", fmt.Errorf("admin listener %s: %w", c.Admin, err)
		}
		done = "changed"
		still.Set("If-Match", header.Get("ETag"))
	}
	if p, err = c.apply(fields); err != nil {
		return p, "", err
	}
	body, err := json.Marshal(p)
	if err != nil {
		return p, "", err
	}
	_, _, err = c.do(e, http.MethodPut, path, bytes.NewReader(body), still, 0)
	return p, done, err
}

func policyPath(name string) string { return "/qos/" + url.PathEscape(name) }

// QosExplainCmd is `tidemark qos explain`.
type QosExplainCmd struct {
	AdminFlags `embed:""`
	Principal  string `help:"Principal of the request. Default User:ANONYMOUS." placeholder:"P"`
	Client     string `help:"Client id of the request." placeholder:"ID"`
	Topic      string `help:"Topic of the request." placeholder:"T"`
	Acks       int16  `help:"Acks of the request." default:"-1" placeholder:"N"`
}

// Help is kong's detailed help.
func (QosExplainCmd) Help() string {
	return `Says which level a Produce request is answered at, and which policy each setting comes from.

Example:

    tidemark qos explain --client orders-7 --topic audit --acks 1`
}

// Run explains.
func (c *QosExplainCmd) Run(e *env) error {
	query := url.Values{"explain": {"1"}, "client": {c.Client}, "topic": {c.Topic}, "principal": {c.Principal}, "acks": {strconv.Itoa(int(c.Acks))}}
	raw, err := c.get(e, "/qos?"+query.Encode(), 0)
	if err != nil {
		return err
	}
	var x server.Explanation
	if err := json.Unmarshal(raw, &x); err != nil {
		return fmt.Errorf("admin listener %s: %w", c.Admin, err)
	}
	fmt.Fprintf(e.stdout, "%s, client id %q, topic %q\n", x.Principal, x.Client, x.Topic)
	asked := "asks for " + x.Asked
	if x.Asked != x.Level {
		asked += ", and floor and ceiling make that " + x.Level
	}
	if !x.Answered {
		asked += "; it is never answered"
	}
	fmt.Fprintf(e.stdout, "acks=%d %s\n", x.Acks, asked)
	if len(x.Reasons) == 0 {
		fmt.Fprintln(e.stdout, "no policy says anything of it: the server's own settings hold")
	} else {
		w := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "\nSETTING\tVALUE\tPOLICY\tFOR")
		for _, r := range x.Reasons {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s", r.Setting, r.Value, r.Policy, r.Match)
			if r.Note != "" {
				fmt.Fprintf(w, " (%s)", r.Note)
			}
			fmt.Fprintln(w)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if len(x.Overruled) > 0 {
		fmt.Fprintf(e.stdout, "\nthese match, too, and more special ones overrule all that they say: %s\n", strings.Join(x.Overruled, ", "))
	}
	return nil
}
