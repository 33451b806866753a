package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tidemark/scripts/figures"
	"tidemark/scripts/node"
)

// system is a broker that is measured.
type system struct {
	name           string
	get            func(dir string) error // what it needs, into its folder
	start          func(r *run, c configuration, data string) (*peer, error)
	configurations []configuration
}

// configuration is one way to run it.
type configuration struct {
	settings string // as the table has it
	value    string // as the system is told
	durable  bool
}

// peer is one that runs.
type peer struct {
	load func(l scenario, rate float64) (figures.Answer, error)
	stop func() error
}

var systems = []system{
	{"tidemark", func(string) error { return nil }, startTidemark, []configuration{{"persistence", "persistence", true}, {"receive", "receive", false}}},
	{"nats", getNATS, startNATS, []configuration{{natsVersion + ", sync_interval always", "always", true}, {natsVersion + ", sync_interval default (2 min)", "", false}}},
	{"redis", getRedis, startRedis, []configuration{{"Debian's, appendfsync always", "always", true}, {"Debian's, appendfsync everysec", "everysec", false}}},
	{"kafka", getKafka, startKafka, []configuration{{kafkaVersion + ", flush.messages=1", "1", true}, {kafkaVersion + ", default", "", false}}},
}

const (
	natsVersion  = "v2.15.2"
	kafkaVersion = "4.4.0"
)

// openLoopInFlight is what a connection may have unanswered in an open loop: enough that what is due need not wait for it.
const openLoopInFlight = 256

// kafkaBench drives a broker with Kafka's protocol.
func (r *run) kafkaBench(addr string, more ...string) func(scenario, float64) (figures.Answer, error) {
	return func(l scenario, rate float64) (figures.Answer, error) {
		command, inFlight := "produce", l.inFlight
		if rate > 0 {
			command, inFlight = "latency", openLoopInFlight
		}
		args := []string{
			"bench", command, "--json", "--bootstrap", addr, "--connections", strconv.Itoa(l.connections), "--in-flight", strconv.Itoa(inFlight), "--records-per-batch", strconv.Itoa(l.records),
			"--record-bytes", strconv.Itoa(l.bytes), "--duration", r.duration.String(), "--warmup", (r.duration / 3).String(),
		}
		if rate > 0 {
			args = append(args, "--rate", fmt.Sprintf("%.0f/s", rate))
		}
		return checked(figures.Child(context.Background(), r.binary, append(args, more...)...))
	}
}

// otherBench drives NATS and Redis.
func (r *run) otherBench(system, addr string) func(scenario, float64) (figures.Answer, error) {
	return func(l scenario, rate float64) (figures.Answer, error) {
		inFlight := l.inFlight
		if rate > 0 {
			inFlight = openLoopInFlight
		}
		return checked(figures.Child(context.Background(), r.loader, "--system", system, "--addr", addr, "--connections", strconv.Itoa(l.connections), "--in-flight", strconv.Itoa(inFlight),
			"--records", strconv.Itoa(l.records), "--bytes", strconv.Itoa(l.bytes), "--rate", strconv.FormatFloat(rate, 'f', 0, 64), "--duration", r.duration.String(), "--warmup", (r.duration / 3).String()))
	}
}

// checked refuses a run of which something was refused. One that answered nothing in the measured time stands as 0.
func checked(a figures.Answer, err error) (figures.Answer, error) {
	if err == nil && a.Num("errors") > 0 {
		err = fmt.Errorf("%v requests refused", a["errors"])
	}
	return a, err
}

func startTidemark(r *run, c configuration, data string) (*peer, error) {
	n, err := node.Start(r.binary, filepath.Join(data, "tidemark"), "journal.retention.bytes=2GiB")
	if err != nil {
		return nil, err
	}
	return &peer{load: r.kafkaBench(n.Addr, "--qos", c.value), stop: func() error { n.Kill(); return nil }}, nil
}

func getNATS(dir string) error {
	return quietly(dir, []string{"GOBIN=" + dir, "GOFLAGS="}, "go", "install", "github.com/nats-io/nats-server/v2@"+natsVersion)
}

func startNATS(r *run, c configuration, data string) (*peer, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf("listen: \"127.0.0.1:%d\"\njetstream {\n  store_dir: %q\n  max_file: 50GB\n", port, data)
	if c.value != "" {
		conf += "  sync_interval: " + c.value + "\n"
	}
	file := filepath.Join(data, "nats.conf")
	if err := os.WriteFile(file, []byte(conf+"}\n"), 0o644); err != nil {
		return nil, err
	}
	p, err := startProcess(data, "Server is ready", nil, filepath.Join(r.folder("nats"), "nats-server"), "-c", file)
	if err != nil {
		return nil, err
	}
	return &peer{load: r.otherBench("nats", fmt.Sprintf("127.0.0.1:%d", port)), stop: p.stop}, nil
}

// redisPackages are Debian's; unpacked, not installed.
var redisPackages = []string{"redis-server", "redis-tools", "libjemalloc2", "liblzf1"}

func getRedis(dir string) error {
	if err := quietly(dir, nil, "apt-get", append([]string{"download", "-q"}, redisPackages...)...); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, p := range packages {
		if err := quietly(dir, nil, "dpkg", "-x", p, dir); err != nil {
			return err
		}
	}
	return nil
}

func startRedis(r *run, c configuration, data string) (*peer, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	libraries, err := filepath.Glob(filepath.Join(r.folder("redis"), "usr/lib/*-linux-gnu*"))
	if err != nil {
		return nil, err
	}
	p, err := startProcess(data, "Ready to accept connections", []string{"LD_LIBRARY_PATH=" + strings.Join(libraries, ":")}, filepath.Join(r.folder("redis"), "usr/bin/redis-server"),
		"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", data, "--save", "", "--appendonly", "yes", "--appendfsync", c.value, "--auto-aof-rewrite-percentage", "0")
	if err != nil {
		return nil, err
	}
	return &peer{load: r.otherBench("redis", fmt.Sprintf("127.0.0.1:%d", port)), stop: p.stop}, nil
}

// kafkaPOM has the broker and what binds its logging, which it does not bring.
const kafkaPOM = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>peers</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>` + kafkaVersion + `</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.5</version></dependency>
  </dependencies>
</project>
`

const kafkaLog = `rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1} - %m%n
logger.server.name = kafka.server
logger.server.level = info
`

func getKafka(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{"pom.xml": kafkaPOM, "log4j2.properties": kafkaLog} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return quietly(dir, nil, "mvn", "-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies", "-DoutputDirectory=lib")
}

func startKafka(r *run, c configuration, data string) (*peer, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	controller, err := freePort()
	if err != nil {
		return nil, err
	}
	properties := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:%[2]d
listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]d
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%[3]s
offsets.topic.replication.factor=1
default.replication.factor=1
min.insync.replicas=1
`, port, controller, filepath.Join(data, "log"))
	if c.value != "" {
		properties += "log.flush.interval.messages=" + c.value + "\n"
	}
	file := filepath.Join(data, "server.properties")
	if err := os.WriteFile(file, []byte(properties), 0o644); err != nil {
		return nil, err
	}
	java := []string{"-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-Dlog4j2.configurationFile=" + filepath.Join(r.folder("kafka"), "log4j2.properties"), "-cp", filepath.Join(r.folder("kafka"), "lib", "*")}
	if err := quietly(data, nil, "java", append(java, "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAQACAAAAAAAAAAA", "-c", file)...); err != nil {
		return nil, err
	}
	p, err := startProcess(data, "Kafka Server started", nil, "java", append(java, "kafka.Kafka", file)...)
	if err != nil {
		return nil, err
	}
	return &peer{load: r.kafkaBench(fmt.Sprintf("127.0.0.1:%d", port), "--acks=-1"), stop: p.stop}, nil
}

// quietly runs a command in a folder, and says what it printed if it fails.
func quietly(dir string, environ []string, name string, args ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), environ...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, lastLines(string(out)))
	}
	return nil
}

func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(len(lines)-5, 0):], "; ")
}

// process is a server that was started here.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

var running sync.Map // *process to struct{}

// endAll ends what was started and still runs.
func endAll() {
	for p := range running.Range {
		p.(*process).cmd.Process.Kill()
	}
}

const (
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
)

// startProcess starts a server and waits until it has said that it is ready.
func startProcess(dir, ready string, environ []string, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, append(os.Environ(), environ...)
	said := &watched{want: []byte(ready), seen: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = said, said
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	running.Store(p, struct{}{})
	go func() {
		_ = p.cmd.Wait() // how it ended does not matter, only that
		running.Delete(p)
		close(p.ended)
	}()
	select {
	case <-said.seen:
		return p, nil
	case <-p.ended:
		return nil, fmt.Errorf("it ended at the start: %s", lastLines(said.String()))
	case <-time.After(startTimeout):
		p.cmd.Process.Kill()
		<-p.ended
		return nil, fmt.Errorf("it was not ready within %v: %s", startTimeout, lastLines(said.String()))
	}
}

func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTimeout):
		p.cmd.Process.Kill()
		<-p.ended
		return errors.New("it did not stop when it was asked to")
	}
}

// watched keeps what a process said last, and tells when it has said what is wanted.
type watched struct {
	want []byte
	seen chan struct{}
	once sync.Once

	mu   sync.Mutex
	last []byte // guarded by mu
}

var _ io.Writer = (*watched)(nil)

// watchedMax is how much is kept.
const watchedMax = 64 << 10

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = append(w.last, b...)
	if bytes.Contains(w.last, w.want) {
		w.once.Do(func() { close(w.seen) })
	}
	if len(w.last) > watchedMax {
		w.last = append([]byte(nil), w.last[len(w.last)-watchedMax/2:]...)
	}
	return len(b), nil
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.last)
}

// freePort is one that nobody listens on. Systems that cannot choose one themselves are told it.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
