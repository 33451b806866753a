// Package group is the coordinator of Kafka's consumer groups: which members a group has, and which of them has which part.
//
// A group is a state machine: Step takes an event and the time, and gives answers; it does nothing else, so what it does is told by scripts (testdata). There are two: Group is the classic protocol, in which the members' leader assigns; Consumer that of KIP-848, in which the group does.
// Coordinator has all groups of a node, a lock for each and one timer for all.
//
// The classic one:
//
//	Empty ──Join──► Preparing ──all joined, or time is up──► Completing ──the leader's Sync──► Stable
//	  ▲                ▲  │                                       │                             │
//	  │                │  └── nobody is left ─► Empty             │                             │
//	  │                └──── Join, Leave, a timeout ──────────────┴─────────────────────────────┘
//	  └── only committed offsets are left
//
// The protocol is Kafka's (KIP-62, KIP-345 static members, KIP-394 known member ids, KIP-429 cooperative rebalancing, which is the clients' affair, KIP-814 static leaders that come back). Members live in memory: they join again behind a restart
// of the node. What a group committed is the catalog's.
package group
