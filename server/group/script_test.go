package group

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/twmb/franz-go/pkg/kerr"
)

// TestScripts plays the files in testdata/classic: a group's life told event by event. `go test ./server/group -run Scripts -rewrite` writes what happens into them; the difference is to be read like code.
//
//	group delay=D members=N       a new group with these limits
//	join NAME [id=ID] [instance=I] [protocols=(a:x,b:y)] [session=D] [rebalance=D] [type=T] [first] [skip]
//	                              NAME asks to join, with the id that it was given if id is not said (id=- for none); first: it gets its id first; skip: a leader may skip assigning
//	sync NAME [gen=N] [parts=(m:x,n:y)] [type=T] [protocol=P]
//	heartbeat NAME [gen=N]
//	leave NAME...
//	commit NAME [gen=N]           NAME - is nobody, who says no generation
//	gone NAME                     NAME's connection ended
//	delete
//	at T                          the time is T: the group looks whenever it asked to, up to then
//	show
//
// An answer is told with the name of who gets it and, once it is another than now, nothing else: the time does not move within a step.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/classic", func(t *testing.T, path string) {
		s := &script{}
		datadriven.RunTest(t, path, s.play)
	})
}

type script struct {
	g     *Group
	now   time.Duration
	refs  map[Ref]string
	last  Ref
	ids   map[string]string // member ids by name
	insts map[string]string
	gens  map[string]int32
	waits map[string]Ref // the newest event of each that is not answered
}

func (s *script) play(t *testing.T, d *datadriven.TestData) string {
	var out strings.Builder
	switch d.Cmd {
	case "group":
		l := Limits{Members: 100}
		for _, a := range d.CmdArgs {
			switch a.Key {
			case "delay":
				l.InitialDelay = duration(t, a.Vals[0])
			case "members":
				fmt.Sscan(a.Vals[0], &l.Members)
			}
		}
		*s = script{g: New(l), refs: make(map[Ref]string), ids: make(map[string]string), insts: make(map[string]string), gens: make(map[string]int32), waits: make(map[string]Ref)}
	case "at":
		to := duration(t, d.CmdArgs[0].Key)
		for {
			next := s.g.Next()
			if next == 0 || next > to {
				break
			}
			s.now = max(next, s.now)
			if told := s.step("", Tick{}); told != "" {
				fmt.Fprintf(&out, "at %v\n%s", s.now, told)
			}
			if s.g.Next() == next {
				t.Fatalf("at %v it asks to be looked at at %v again", s.now, next)
			}
		}
		s.now = to
	case "show":
		return s.show()
	case "delete":
		out.WriteString(s.step("delete", Delete{}))
	case "leave":
		var l Leave
		for _, a := range d.CmdArgs {
			l.Members = append(l.Members, s.who(a.Key))
		}
		out.WriteString(s.step("leave", l))
	default:
		out.WriteString(s.member(t, d))
	}
	if out.Len() == 0 {
		return "-\n"
	}
	return out.String()
}

func (s *script) who(name string) Who {
	if name == "-" {
		return Who{Generation: -1}
	}
	id, known := s.ids[name]
	if !known {
		id = name
	}
	return Who{Member: id, Instance: s.insts[name], Generation: s.gens[name]}
}

// member plays what one member does.
func (s *script) member(t *testing.T, d *datadriven.TestData) string {
	name := d.CmdArgs[0].Key
	who := s.who(name)
	join := Join{NewID: name, ProtocolType: "consumer", Protocols: []Protocol{{"range", []byte("r")}}, Session: 10 * time.Second, Rebalance: 60 * time.Second}
	sync := Sync{Assignments: make(map[string][]byte)}
	if s.ids[name] == "" {
		who.Member = ""
	}
	for _, a := range d.CmdArgs[1:] {
		val := strings.Join(a.Vals, ",")
		switch a.Key {
		case "id":
			who.Member = strings.TrimPrefix(val, "-")
			if val == "-" {
				join.NewID = name + "'"
			}
		case "instance":
			who.Instance, s.insts[name] = val, val
		case "gen":
			fmt.Sscan(val, &who.Generation)
		case "protocols":
			join.Protocols = nil
			for _, v := range a.Vals {
				p, metadata, _ := strings.Cut(v, ":")
				join.Protocols = append(join.Protocols, Protocol{p, []byte(metadata)})
			}
		case "parts":
			for _, v := range a.Vals {
				m, part, _ := strings.Cut(v, ":")
				sync.Assignments[s.who(m).Member] = []byte(part)
			}
		case "session":
			join.Session = duration(t, val)
		case "rebalance":
			join.Rebalance = duration(t, val)
		case "type":
			join.ProtocolType, sync.ProtocolType = val, &val
		case "protocol":
			sync.Protocol = &val
		case "first":
			join.NeedsID = true
		case "skip":
			join.CanSkip = true
		default:
			t.Fatalf("%s: unknown argument %q", d.Pos, a.Key)
		}
	}
	switch d.Cmd {
	case "join":
		join.Who = who
		return s.step(name, join)
	case "sync":
		sync.Who = who
		return s.step(name, sync)
	case "heartbeat":
		return s.step(name, Heartbeat{who})
	case "commit":
		if name == "-" {
			who = Who{Generation: -1}
		}
		return s.step(name, Commit{who, nil})
	case "gone":
		return s.step("", Gone{s.waits[name]})
	}
	t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	return ""
}

// step plays one event and tells what was answered, sorted by who.
func (s *script) step(name string, e Event) string {
	ref := Ref(0)
	if name != "" {
		s.last++
		ref = s.last
		s.refs[ref] = name
		s.waits[name] = ref
	}
	var lines []string
	for _, a := range s.g.Step(s.now, ref, e) {
		to, known := s.refs[a.To]
		if !known {
			lines = append(lines, fmt.Sprintf("ANSWERED AGAIN: %d", a.To))
		}
		delete(s.refs, a.To)
		if s.waits[to] == a.To {
			delete(s.waits, to)
		}
		lines = append(lines, to+": "+s.tell(to, a.Body))
	}
	sort.Strings(lines)
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

func (s *script) tell(to string, body any) string {
	switch r := body.(type) {
	case JoinReply:
		if r.Err == nil || r.Err == kerr.MemberIDRequired {
			s.ids[to], s.gens[to] = r.Member, r.Generation
		}
		if r.Err != nil {
			return "join " + r.Err.Message
		}
		out := fmt.Sprintf("joined as %s generation=%d protocol=%s leader=%s", r.Member, r.Generation, r.Protocol, r.Leader)
		if r.SkipAssignment {
			out += " nothing to assign"
		}
		for _, m := range r.Members {
			out += fmt.Sprintf(" %s=%s", m.Member, m.Metadata)
		}
		return out
	case SyncReply:
		if r.Err != nil {
			return "sync " + r.Err.Message
		}
		return fmt.Sprintf("has %q", r.Assignment)
	case LeaveReply:
		var errs []string
		for _, err := range r.Errs {
			errs = append(errs, message(err))
		}
		return strings.Join(errs, ", ")
	case Reply:
		return message(r.Err)
	}
	return fmt.Sprintf("%T", body)
}

func message(err *kerr.Error) string {
	if err == nil {
		return "ok"
	}
	return err.Message
}

func (s *script) show() string {
	d := s.g.Describe()
	out := fmt.Sprintf("%s generation=%d next=%v\n", d.State, d.Generation, s.g.Next())
	for _, m := range d.Members {
		out += fmt.Sprintf("%s%s %q\n", m.ID, strings.TrimSuffix("/"+m.Instance, "/"), m.Assignment)
	}
	pending := make([]string, 0, len(s.g.pending))
	for id := range s.g.pending {
		pending = append(pending, id)
	}
	slices.Sort(pending)
	for _, id := range pending {
		out += id + " (has an id)\n"
	}
	return out
}

func duration(t *testing.T, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
