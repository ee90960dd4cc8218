package bot

import (
	"github.com/slack-go/slack"

	"countersign/approvals"
)

// handOffButtons are what a request that waits for people can be pressed for:
// Done by whoever did it, then Confirmed by somebody else, or Not so.
func handOffButtons(r approvals.Request) []slack.BlockElement {
	if r.State != approvals.StateHandedOff {
		return nil
	}
	if r.Journal[len(r.Journal)-1].DoneBy == nil {
		done := button(actionAttest, r.ID, "Done", slack.StylePrimary)
		done.Confirm = slack.NewConfirmationBlockObject(plain("Did you do it?", 100),
			plain("You say with your name that you did by hand, for "+r.Plan.Target.UPN+", what the last step says. Somebody else will be asked to confirm it.", maxConfirm),
			plain("I did it", 30), plain("Back", 30))
		return []slack.BlockElement{done}
	}
	confirm := button(actionConfirm, r.ID, "Confirmed", slack.StylePrimary)
	confirm.Confirm = slack.NewConfirmationBlockObject(plain("Did you look?", 100),
		plain("You say with your name that you looked in the Entra admin center, and that it is done for "+r.Plan.Target.UPN+".", maxConfirm),
		plain("I looked", 30), plain("Back", 30))
	return []slack.BlockElement{confirm, button(actionRetract, r.ID, "Not so", slack.StyleDanger)}
}

// handOffFacts say who attested what.
func handOffFacts(r approvals.Request) []line {
	var facts []line
	for _, e := range r.Journal {
		if e.DoneBy != nil {
			facts = append(facts, line{}.bold("Done by hand by ").who(e.DoneBy.By).raw(", ").when(e.DoneBy.At))
		}
		if e.Confirmed != nil {
			facts = append(facts, line{}.bold("Confirmed by ").who(e.Confirmed.By).raw(", ").when(e.Confirmed.At))
		}
	}
	return facts
}
