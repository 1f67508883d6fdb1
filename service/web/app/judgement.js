// What an answer means at another false-positive rate: arithmetic on scores that the page has; pure functions.
// resad/calibration.py is the same for the service.

const TAIL = 0.025;
const RATES = [0.01, 0.02, 0.05, 0.1, 0.2];
const NEAR = 0.1;

/** The service's own choice, false regions per photograph. */
export const USUAL_FALSE_REGIONS = 0.25;

/** The fewest healthy photographs with which p can come down to `fpr`. */
export const normalsNeeded = (fpr) => Math.ceil(1 / fpr - 1e-9) - 1;

/** The rates that so many healthy photographs support. */
export const ratesFor = (normals) => RATES.filter((rate) => normalsNeeded(rate) <= normals);

/**
 * `answer` with p-value, threshold, verdict and its reason at the rate `fpr`; as it is where it was asked for at that
 * rate, or where the index does not tell its calibration.
 */
export function judged(answer, fpr, calibration) {
  if (answer.fpr === fpr || !calibration) return answer;
  const scores = scoresOf(calibration, answer.normals.camera);
  const count = scores.length;
  const allowed = Math.min(Math.floor(fpr * (count + 1) + 1e-9), count);
  const score = answer.image_score;
  if (allowed < 1) {
    const reason = `a rate of ${fpr} needs ${normalsNeeded(fpr)} normal photographs, the index has ${count}`;
    const nothing = { p_value: null, threshold: null, abnormal: null, reason };
    return { ...answer, ...nothing, fpr, normals: { ...answer.normals, rate: null } };
  }
  const threshold = scores[count - allowed];
  const atLeast = scores.filter((value) => value >= score).length;
  const rate = interval(scores.filter((value) => value > threshold).length, count);
  return {
    ...answer,
    p_value: (1 + atLeast) / (count + 1),
    fpr,
    threshold,
    abnormal: score > threshold,
    reason: null,
    normals: { ...answer.normals, rate },
  };
}

/** The scores, rising, of the healthy photographs that one of this camera is compared with. */
export function scoresOf(calibration, camera) {
  const stated = calibration.cameras.find((part) => part.camera === camera);
  return (stated?.normals ?? calibration).scores;
}

/** Clopper and Pearson's 95 % interval of the rate of which `count` trials showed `hits`. */
export function interval(hits, count) {
  const low = hits === 0 ? 0 : bisect((rate) => 1 - atMost(hits - 1, count, rate) < TAIL);
  const high = hits === count ? 1 : bisect((rate) => atMost(hits, count, rate) > TAIL);
  return { low, high };
}

/** Whether a verdict lies near the threshold, in words; empty where it does not. */
export function closeness({ abnormal, p_value: p, fpr, image_score: score, threshold }) {
  if (abnormal === null || threshold === null) return "";
  if (abnormal) return score < (1 + NEAR) * threshold ? "barely above the threshold" : "";
  return p <= 2 * fpr || score > (1 - NEAR) * threshold ? "just below the threshold" : "";
}

/** The p-value as a rank: what it means, and where it cannot be lower. */
export function rankWords({ p_value: p, normals }) {
  if (p === null) return "";
  const count = normals.photos;
  const rank = Math.round(p * (count + 1));
  if (rank === 1) return `1 of ${count + 1}: the lowest p that ${count} healthy photographs allow; none scores as high`;
  const some = rank === 2 ? "1 healthy photograph scores" : `${rank - 1} healthy photographs score`;
  return `${rank} of ${count + 1}: ${some} as high or higher`;
}

/** The end of the stretch from 0 in which `holds` is true. */
function bisect(holds) {
  let [low, high] = [0, 1];
  for (let step = 0; step < 60; step += 1) {
    const middle = (low + high) / 2;
    if (holds(middle)) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** The probability of at most `hits` of `count` at `rate` (binomial), in logarithms: many photographs underflow. */
function atMost(hits, count, rate) {
  if (rate <= 0) return 1;
  if (rate >= 1) return hits >= count ? 1 : 0;
  let [log, sum] = [count * Math.log1p(-rate), 0];
  for (let k = 0; k <= hits; k += 1) {
    sum += Math.exp(log);
    log += Math.log((count - k) / (k + 1)) + Math.log(rate / (1 - rate));
  }
  return Math.min(1, sum);
}
