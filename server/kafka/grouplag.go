package kafka

import (
	"cmp"
	"slices"

	"tidemark/server/group"
)

// GroupLag is how far a consumer group is behind.
type GroupLag struct {
	Group      string `json:"group"`
	State      string `json:"state"`
	Members    int    `json:"members"`
	Partitions int    `json:"partitions"` // of which it has committed an offset
	Lag        int64  `json:"lag"`        // records in them that it has not committed
}

// GroupLags are the n groups that are most behind, and how many groups there are.
func (b *Broker) GroupLags(n int) (most []GroupLag, groups int) {
	all := b.allGroups()
	view := b.p.View()
	for _, d := range all {
		one := GroupLag{Group: d.Name, State: d.State, Members: len(d.Members)}
		for id, parts := range b.p.Groups().All(d.Name) {
			topic := view.ByID[id]
			if topic == nil {
				continue
			}
			for index, at := range parts {
				if int(index) < len(topic.Partitions) {
					one.Partitions++
					part := topic.Partitions[index]
					one.Lag += max(int64(part.HighWatermark())-max(at.Offset, int64(part.LogStart())), 0)
				}
			}
		}
		most = append(most, one)
	}
	slices.SortStableFunc(most, func(a, b GroupLag) int { return cmp.Compare(b.Lag, a.Lag) })
	return most[:min(n, len(most))], len(all)
}

// allGroups are the groups with members and those with committed offsets, by name.
func (b *Broker) allGroups() []group.Description {
	all := b.groups.All()
	known := make(map[string]bool, len(all))
	for _, d := range all {
		known[d.Name] = true
	}
	for _, name := range b.p.Groups().Names() {
		if !known[name] {
			all = append(all, group.Description{Name: name, Type: group.TypeClassic, State: group.Empty.String()})
		}
	}
	slices.SortFunc(all, func(a, b group.Description) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
