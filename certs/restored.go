package certs

// restored is the step where somebody put another CA into the Secret: one of before, from a backup. What is served is signed by a CA that
// nothing is written down of any more, but that API servers trust. The one in the Secret has to be trusted before it signs, as any other
// that follows. No CA comes to be trusted by this that is not.
func (r rotation) restored(s *situation) (rotation, *Change, error) {
	serves := s.leaf != nil && !s.now.Before(s.leaf.NotBefore) && !s.now.After(s.leaf.NotAfter)
	if !serves || s.held == nil || len(r.Signing.Key) == 0 || signedBy(s.serving, r.bundle(), s.now) {
		return r, nil, nil
	}
	held, err := s.held()
	if err != nil {
		return r, nil, err
	}
	known := ours(held, s.names)
	before := rotation{
		Signing: Pair{Certificate: signerOf(s.serving, known, s.now)}, SignedUntil: s.leaf.NotAfter,
		Next: r.Signing, Previous: known, RetireAt: s.leaf.NotAfter,
	}
	if len(before.Signing.Certificate) == 0 || !before.isOnlyTrusted(s) {
		return r, nil, nil
	}
	return before.to(PhasePublish, s.now).because(ReasonCALost,
		"another CA is in the Secret than the one that signed what is served: it is to be trusted beside that before it signs")
}
