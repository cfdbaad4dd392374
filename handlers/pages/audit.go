package pages

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

type auditView struct {
	Filter   outbox.AuditFilter
	Filtered bool
	Entries  []outbox.AuditEntry
	Older    string
}

// audit is what operators did, by whom and why.
func (p *Pages) audit(c echo.Context) error {
	f := filter{value: c.QueryParam}
	v := auditView{Filter: outbox.AuditFilter{Actor: f.text("actor"), Action: f.text("action"), Target: f.text("target")}}
	before := f.cursor()
	if f.refuse != nil {
		return p.refuse(c, *f.refuse)
	}
	v.Filtered = v.Filter != outbox.AuditFilter{}
	var err error
	if v.Entries, err = p.operator.Audit(c.Request().Context(), v.Filter, before, perPage+1); err != nil {
		return err
	}
	if len(v.Entries) > perPage {
		v.Entries = v.Entries[:perPage]
		v.Older = older(here(c), v.Entries[perPage-1].ID)
	}
	return p.render(c, http.StatusOK, "audit", "Audit", v)
}
