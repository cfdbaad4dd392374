package outbox_test

import "testing"

// save keeps all rows of the rig's tables. What it returns gives them back to a subtest, so that subtests that begin alike, one after
// the other, share one database and the making of what is in it. Sequences go on.
func (r *rig) save() (again func(t *testing.T) *rig) {
	r.t.Helper()
	r.exec(`create schema saved`)
	r.exec(eachTable + `execute format('create table saved.%I as table public.%1$I', t.name); end loop; end $$`)
	return func(t *testing.T) *rig {
		t.Helper()
		own := *r
		own.t = t
		// As a replica, no trigger fires and no foreign key is asked.
		own.exec(eachTable + `
			set local session_replication_role = replica;
			execute format('delete from public.%I', t.name);
			execute format('insert into public.%I (%s) overriding system value select %2$s from saved.%1$I', t.name, t.columns); end loop; end $$`)
		return &own
	}
}

// eachTable begins a loop over the tables, with those of their columns that can be written.
const eachTable = `do $$ declare t record; begin for t in
	select c.relname as name, string_agg(quote_ident(a.attname), ', ') as columns
	from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
	where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
	group by c.oid loop `
