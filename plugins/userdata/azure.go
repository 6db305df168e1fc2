package userdata

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
)

// wireAddress is Azure's wire server, which waits for a new machine to say that it is ready: without, Azure shows it as failed after a while.
const wireAddress = "http://168.63.129.16"

// goalState is what of the wire server's answer names the machine.
type goalState struct {
	Incarnation string
	Container   string `xml:"Container>ContainerId"`
	Instance    string `xml:"Container>RoleInstanceList>RoleInstance>InstanceId"`
}

// health is the report.
type health struct {
	XMLName     xml.Name `xml:"Health"`
	Incarnation string   `xml:"GoalStateIncarnation"`
	Container   string   `xml:"Container>ContainerId"`
	Instance    string   `xml:"Container>RoleInstanceList>Role>InstanceId"`
	State       string   `xml:"Container>RoleInstanceList>Role>Health>State"`
}

// reportReady tells the wire server that the machine is ready. Source: "Creating a generalized image without a provisioning agent", Azure.
func reportReady(ctx context.Context, address string) error {
	const protocol, version = "X-Ms-Version", "2012-11-30"
	got, err := ask(ctx, http.MethodGet, address+"/machine/?comp=goalstate", http.Header{protocol: {version}}, nil)
	if err != nil {
		return err
	}
	if got.status != http.StatusOK {
		return got.unexpected()
	}
	var goal goalState
	if err := xml.Unmarshal(got.body, &goal); err != nil {
		return fmt.Errorf("%s: %w", got.address, err)
	}
	if goal.Incarnation == "" || goal.Container == "" || goal.Instance == "" {
		return fmt.Errorf("%s: the goal state does not name the machine", got.address)
	}
	body, err := xml.Marshal(health{Incarnation: goal.Incarnation, Container: goal.Container, Instance: goal.Instance, State: "Ready"})
	if err != nil {
		return err
	}
	header := http.Header{protocol: {version}, "Content-Type": {"text/xml;charset=utf-8"}}
	got, err = ask(ctx, http.MethodPost, address+"/machine?comp=health", header, bytes.NewReader(append([]byte(xml.Header), body...)))
	if err != nil {
		return err
	}
	if got.status != http.StatusOK {
		return got.unexpected()
	}
	return nil
}
