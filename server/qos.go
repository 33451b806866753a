package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"tidemark/qos"
	"tidemark/server/kafka"
)

// Policies over HTTP: GET /qos lists them, most special first; GET, PUT and DELETE /qos/NAME are about one, as JSON with the fields of qos.Policy. GET has an ETag, and PUT minds If-Match and If-None-Match: *, so that two who change one policy do not undo each other's change. A change is answered when it is durable and applied. GET /qos?explain=1&client=ID&topic=T&principal=P&acks=N says what they mean for a request.

// maxPolicyBody bounds a policy as JSON.
const maxPolicyBody = 64 << 10

// Explanation is what policies and the server's own settings make of a request.
type Explanation struct {
	Principal string       `json:"principal"`
	Client    string       `json:"client"`
	Topic     string       `json:"topic"`
	Acks      int16        `json:"acks"`
	Asked     string       `json:"asked"` // the level that acks asks for, by the policies' map of acks or the server's
	Level     string       `json:"level"` // the least level that waits for all that floor and ceiling leave
	Answered  bool         `json:"answered"`
	Reasons   []qos.Reason `json:"reasons"`
	Overruled []string     `json:"overruled,omitempty"` // policies that match, and of which nothing is used
}

// PolicyCounts are what a policy's rates did since the start.
type PolicyCounts struct {
	Throttled int64   `json:"throttled_requests_total"`
	WaitS     float64 `json:"throttled_seconds_total"`
}

func (a *Admin) qosRoutes(mux *http.ServeMux) {
	handle := func(pattern string, fn func(*Server, http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			s := a.server.Load()
			if s == nil {
				http.Error(w, ErrStarting.Error(), http.StatusServiceUnavailable)
				return
			}
			if err := fn(s, w, r); err != nil {
				http.Error(w, err.Error(), policyStatus(err))
			}
		})
	}
	handle("GET /qos", (*Server).listPolicies)
	handle("GET /qos/{name}", (*Server).getPolicy)
	handle("PUT /qos/{name}", (*Server).putPolicy)
	handle("DELETE /qos/{name}", func(s *Server, w http.ResponseWriter, r *http.Request) error {
		if err := s.broker.UnsetPolicy(r.Context(), r.PathValue("name")); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

// errAcks refuses to explain a request that is refused.
var errAcks = errors.New("acks is none of -1, 0, 1 and 101 to 104 (100 and the code of a level)")

// errPolicyChanged refuses a PUT whose If-Match or If-None-Match does not hold any more.
var errPolicyChanged = errors.New("the policy has changed meanwhile")

// policyTag is a policy's ETag.
func policyTag(p *qos.Policy) string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // plain structs always encode
	}
	sum := sha256.Sum256(b)
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

func policyStatus(err error) int {
	switch {
	case errors.Is(err, errPolicyChanged):
		return http.StatusPreconditionFailed
	case errors.Is(err, qos.ErrNoPolicy):
		return http.StatusNotFound
	case errors.Is(err, qos.ErrPolicyTie), errors.Is(err, qos.ErrPolicies):
		return http.StatusConflict
	case errors.Is(err, qos.ErrPolicy), errors.Is(err, errAcks):
		return http.StatusBadRequest
	}
	return http.StatusServiceUnavailable
}

func (s *Server) listPolicies(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Query().Has("explain") {
		return s.explain(w, r)
	}
	list := s.broker.Policies().All()
	if list == nil {
		list = []*qos.Policy{}
	}
	return writeJSON(w, list)
}

func (s *Server) getPolicy(w http.ResponseWriter, r *http.Request) error {
	p := s.broker.Policies().Get(r.PathValue("name"))
	if p == nil {
		return fmt.Errorf("%w: %q", qos.ErrNoPolicy, r.PathValue("name"))
	}
	w.Header().Set("ETag", policyTag(p))
	return writeJSON(w, p)
}

func (s *Server) putPolicy(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxPolicyBody+1))
	if err != nil {
		return fmt.Errorf("%w: %w", qos.ErrPolicy, err)
	}
	if len(body) > maxPolicyBody {
		return fmt.Errorf("%w: it has more than %d bytes", qos.ErrPolicy, maxPolicyBody)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var fields map[string]any
	if err := d.Decode(&fields); err != nil {
		return fmt.Errorf("%w: it is no JSON object: %w", qos.ErrPolicy, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: there is more behind the policy", qos.ErrPolicy)
	}
	p, err := qos.DecodePolicy(fields)
	if err != nil {
		return err
	}
	if name := r.PathValue("name"); p.Name == "" {
		p.Name = name
	} else if p.Name != name {
		return fmt.Errorf("%w: it is called %q in the body and %q in the path", qos.ErrPolicy, p.Name, name)
	}
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match") == "*"
	err = s.broker.SetPolicy(r.Context(), p, func(have *qos.Policy) error {
		if none && have != nil || match != "" && (have == nil || policyTag(have) != match) {
			return fmt.Errorf("%w: %q", errPolicyChanged, p.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.Header().Set("ETag", policyTag(&p))
	return writeJSON(w, &p)
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	x := Explanation{Principal: q.Get("principal"), Client: q.Get("client"), Topic: q.Get("topic"), Acks: -1, Reasons: []qos.Reason{}}
	if x.Principal == "" {
		x.Principal = kafka.Anonymous
	}
	if text := q.Get("acks"); text != "" {
		acks, err := strconv.ParseInt(text, 10, 16)
		if err != nil {
			return fmt.Errorf("%w: %q", errAcks, text)
		}
		x.Acks = int16(acks)
	}
	set := s.broker.Policies()
	if set == nil {
		set = new(qos.Policies)
	}
	e := set.For(x.Principal, x.Client, x.Topic)
	asked, marks, ok := e.Marks(x.Acks, s.opts.Kafka.Acks)
	if !ok {
		return fmt.Errorf("%w: %d", errAcks, x.Acks)
	}
	x.Asked, x.Level, x.Answered = asked.String(), qos.LevelOf(marks).String(), x.Acks != 0
	used := map[string]bool{}
	for _, reason := range e.Reasons() {
		used[reason.Policy] = true
		x.Reasons = append(x.Reasons, reason)
	}
	for _, p := range set.All() {
		if !used[p.Name] && p.Matches(x.Principal, x.Client, x.Topic) {
			x.Overruled = append(x.Overruled, p.Name)
		}
	}
	return writeJSON(w, x)
}

// policyCounts are those of all policies, by name.
func (s *Server) policyCounts() map[string]PolicyCounts {
	out := make(map[string]PolicyCounts)
	for _, p := range s.broker.Policies().All() {
		c := s.broker.QuotaCounts(p.Name)
		out[p.Name] = PolicyCounts{Throttled: c.Throttled.Load(), WaitS: time.Duration(c.Waits.Load()).Seconds()}
	}
	return out
}

// writeJSON answers with v. An error of the connection is the client's going.
func writeJSON(w http.ResponseWriter, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n'))
	return nil
}
