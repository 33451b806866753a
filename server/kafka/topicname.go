package kafka

import (
	"fmt"
	"regexp"
)

// topicNameMax is Kafka's limit on a topic's name, bytes.
const topicNameMax = 249

var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)

// checkTopicName has Kafka's rules for a topic's name.
func checkTopicName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("topic name %q is not allowed", name)
	case len(name) > topicNameMax:
		return fmt.Errorf("topic name of %d bytes; the limit is %d", len(name), topicNameMax)
	case !topicName.MatchString(name):
		return fmt.Errorf("topic name %q: letters, digits, '.', '_' and '-' are allowed", name)
	}
	return nil
}
