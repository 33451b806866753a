package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// AdminFlags lead to a node's admin listener.
type AdminFlags struct {
	Admin string `default:"127.0.0.1:9644" env:"TIDEMARK_ADMIN" help:"Admin listener of the node." placeholder:"HOST:PORT"`
}

// adminError is a refusal of the admin listener.
type adminError struct {
	addr, text string
	status     int
}

func (e *adminError) Error() string {
	return fmt.Sprintf("%s (the node at %s refused)", e.text, e.addr)
}

// adminPatience is how long an answer may take beyond what it has to.
const adminPatience = 10 * time.Second

// get fetches a path of the admin listener; wait is how long the answer has to take.
func (a *AdminFlags) get(e *env, path string, wait time.Duration) ([]byte, error) {
	b, _, err := a.do(e, http.MethodGet, path, nil, nil, wait)
	return b, err
}

// do asks the admin listener, with more headers, and returns the answer and its headers.
func (a *AdminFlags) do(e *env, method, path string, body io.Reader, more http.Header, wait time.Duration) ([]byte, http.Header, error) {
	if strings.Contains(a.Admin, "/") {
		return nil, nil, usageErrorf("--admin %q: it is HOST:PORT, without http://", a.Admin)
	}
	req, err := http.NewRequestWithContext(e.ctx, method, "http://"+a.Admin+path, body)
	if err != nil {
		return nil, nil, usageErrorf("--admin %q: %w", a.Admin, err)
	}
	maps.Copy(req.Header, more)
	client := http.Client{Timeout: wait + adminPatience}
	resp, err := client.Do(req)
	if e.ctx.Err() != nil {
		return nil, nil, errInterrupted
	}
	if err != nil {
		if u := (*url.Error)(nil); errors.As(err, &u) { // without the request's address: it is known
			err = u.Err
		}
		return nil, nil, exitWith(exitUnreachable, fmt.Errorf("admin listener %s: %w (is the node running, with --admin-listen?)", a.Admin, err))
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return nil, nil, exitWith(exitUnreachable, fmt.Errorf("admin listener %s: %w", a.Admin, err))
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, nil, exitWith(exitRefused, &adminError{a.Admin, string(bytes.TrimSpace(got)), resp.StatusCode})
	}
	return got, resp.Header, nil
}
