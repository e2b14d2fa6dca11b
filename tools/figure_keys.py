"""What every key of ``tools/evaluate.py``'s JSON file means: the end of its ``--help``."""

EPILOG = """\
keys of the JSON file:
  engine, fingerprint, backend   what was measured
  notes      {figure: why it is null throughout}
  clips      a list with one entry per clip (its name under "clip"), with the figures below
  mean       the same figures, each the mean over the clips that have it, and
               count                 the clips measured
               lag_within_1_share    share of the clips whose lag is -1, 0 or 1
  failed     a list of {clip, reason}: clips that could not be measured; they are in no mean
  portraits  with --portraits: {entries, mean, failed}, see below
  sounds     with --sounds: {entries, by_sound, failed}, see below

figures of a clip, also in mean (null where there is none, e.g. no face on the rendered frames). A name alone is
of the rendered frames; with _still of the anchor "the first real frame, held"; with _real of the anchor "the real
frames" (where both are compared, that anchor is 1 or 0 by itself and has no key):
  mouth_corr         Pearson's correlation at lag 0 of the inner-lip opening (landmarks 13, 14), rendered : real
  lag_frames         shift within +-5 frames at which it correlates best; positive: the rendered mouth is late
  m_lmd              mean distance of the 40 lip points, their centroid taken out, pixels of the 256 px crop
  f_lmd              mean distance of the 468 face points, pixels
  opening_std        standard deviation of the opening, pixels; opening_std_ratio: rendered / real
  ssim, psnr         rendered frames against real ones in the same crop (not aligned to each other); psnr in dB
  lpips              LPIPS (AlexNet), every 5th frame; null where the package or its weights are not installed
  cpbd               sharpness, Narvekar and Karam 2011, 0 to 1, mean of every 5th frame; cpbd_source: of the
                     enrolled portrait; cpbd_ratio: rendered / portrait
  mouth_detail       standard deviation of what a blur of 1.5 px takes from a box around the lips, grey levels;
                     mouth_detail_ratio: rendered / real (CPBD hardly sees the mouth, which has few edges)
  sync, sync_offset  our own frozen lip-sync judge (not SyncNet: compare with the two anchors only): mean cosine of lips
                     and sound at the best shift within +-15 frames less the median over all shifts, and that
                     shift; positive: the mouth is late. Null without the judge's weights or 2 s with a face
  flicker            mean change of a pixel of the upper face from one frame to the next, grey levels, over the
                     steps in which the REAL upper face holds still: its rigid points move less than 0.4 px in
                     the mean, no lid or brow point moves 1 px; still_steps: how many these are (null below 5)
  upper_psnr         PSNR of the upper face against the enrolled portrait, dB, at most 60 (equal); upper_psnr_worst:
                     of the worst frame. The pose is locked, so nothing there should move
  faces_found        rendered frames in which a face is found; no_face_frames: the others
  frames             frames rendered

figures of portraits.entries, one per portrait and voice; portraits.mean holds means over all entries:
  portrait, voice, frames, faces_found, no_face_frames, upper_psnr, upper_psnr_worst, cpbd, cpbd_source, cpbd_ratio
  opening_std, opening_std_silence   standard deviation of the opening to the voice and to 2 s of silence, pixels
  moves              the mouth visibly moves: opening_std is at least 0.75 px and twice that in silence
  in mean also: count, portraits, voices; faces_share: frames with a face / frames; moves_share: entries that move;
  upper_psnr_worst there is the worst of all

figures of sounds.entries, one per portrait and sound; sounds.by_sound holds a row per sound over the portraits:
  portrait, sound, frames, opening_std
  opening_std_speech the same portrait's opening_std, mean of the voices
  share              opening_std / opening_std_speech: how still the mouth keeps to what is no speech
  in by_sound also: portraits (how many); share_worst: the largest share of a portrait

Landmarks are MediaPipe's 478, found again on every frame; each frame is first moved rigidly, with scale, onto
the clip's first real frame (or the portrait) over points that speech does not move. Real frames are cropped by their
clip's first frame, as enrolment crops it. The landmark tracker sees the first frame five times before it counts, so
that the still anchor is what a held picture would measure. Figures of lips and face are over frames with a face
on both sides. The upper face is the inside of the face's outline, less a rim of 4 px, above the tip of the nose.

exit status: 0 when something was measured, 1 when nothing could be, 2 for wrong arguments.
"""
