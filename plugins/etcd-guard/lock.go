package etcdguard

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// lockKey is the cluster's one lock. Its lease is the holder's.
const lockKey = "/cosi.dev/etcd-guard/lock"

// lock is the content of the key; without a member nobody holds it.
type lock struct {
	Member string    `json:"member"`
	Since  time.Time `json:"since"`

	lease clientv3.LeaseID
}

// lock takes the lock, or renews it when the node has it already. The error of one that another holds names him.
func (c *cluster) lock(ctx context.Context) error {
	ttl := int64(orElse(c.config.GetLease(), 10*time.Minute) / time.Second)
	lease, err := c.client.Grant(ctx, ttl)
	if err != nil {
		return fmt.Errorf("the lock cannot be taken, etcd may have no quorum: %w", err)
	}
	value, err := json.Marshal(lock{Member: c.config.GetMember(), Since: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	got, err := c.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(lockKey), "=", 0)).
		Then(clientv3.OpPut(lockKey, string(value), clientv3.WithLease(lease.ID))).
		Else(clientv3.OpGet(lockKey)).Commit()
	if err != nil {
		return fmt.Errorf("the lock cannot be taken, etcd may have no quorum: %w", err)
	}
	if got.Succeeded {
		return nil
	}
	if _, err := c.client.Revoke(ctx, lease.ID); err != nil {
		return fmt.Errorf("the lock: %w", err)
	}
	held, err := parse((*clientv3.GetResponse)(got.Responses[0].GetResponseRange()))
	switch {
	case err != nil:
		return err
	case held.Member != c.config.GetMember():
		return fmt.Errorf("member %q is going down, or is down, since %s", held.Member, held.Since.Format(time.RFC3339))
	}
	return c.extend(ctx, held)
}

// renew has the lease begin again, if the node holds the lock.
func (c *cluster) renew(ctx context.Context) error {
	held, err := c.held(ctx)
	if err != nil || held.Member != c.config.GetMember() {
		return err
	}
	return c.extend(ctx, held)
}

func (c *cluster) extend(ctx context.Context, held lock) error {
	if _, err := c.client.KeepAliveOnce(ctx, held.lease); err != nil {
		return fmt.Errorf("the lock cannot be renewed: %w", err)
	}
	return nil
}

// unlock lets the lock go if the node holds it.
func (c *cluster) unlock(ctx context.Context) error {
	held, err := c.held(ctx)
	if err != nil || held.Member != c.config.GetMember() {
		return err
	}
	// The key goes with its lease.
	if _, err := c.client.Revoke(ctx, held.lease); err != nil {
		return fmt.Errorf("the lock cannot be let go: %w", err)
	}
	return nil
}

func (c *cluster) held(ctx context.Context) (lock, error) {
	got, err := c.client.Get(ctx, lockKey)
	if err != nil {
		return lock{}, fmt.Errorf("the lock cannot be read, etcd may have no quorum: %w", err)
	}
	return parse(got)
}

func parse(got *clientv3.GetResponse) (lock, error) {
	if len(got.Kvs) == 0 {
		return lock{}, nil
	}
	l := lock{lease: clientv3.LeaseID(got.Kvs[0].Lease)}
	if err := json.Unmarshal(got.Kvs[0].Value, &l); err != nil {
		return lock{}, fmt.Errorf("the lock %s: %w", lockKey, err)
	}
	return l, nil
}
