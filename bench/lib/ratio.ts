/** The ratio of two series that were measured in pairs, with its 95 % confidence interval. */

export type Ratio = { readonly ratio: number; readonly low: number; readonly high: number }

/**
 * Two-sided 97.5 % quantiles of Student's t distribution for 1 to 15 degrees of freedom; beyond that, 2.1 is on the
 * safe side.
 */
const T = [12.71, 4.3, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.2, 2.18, 2.16, 2.14, 2.13]
const T_BEYOND = 2.12

/**
 * The geometric mean of `after[i] / before[i]`. The interval supposes that the logarithms of the ratios are normally
 * distributed; with one pair it is not bounded.
 */
export function pairedRatio(before: readonly number[], after: readonly number[]): Ratio {
  const logs = after.map((value, i) => Math.log(value / (before[i] ?? Number.NaN)))
  const n = logs.length
  const mean = logs.reduce((sum, value) => sum + value, 0) / n
  if (n < 2) return { ratio: Math.exp(mean), low: 0, high: Number.POSITIVE_INFINITY }
  const variance = logs.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1)
  const half = (T[n - 2] ?? T_BEYOND) * Math.sqrt(variance / n)
  return { ratio: Math.exp(mean), low: Math.exp(mean - half), high: Math.exp(mean + half) }
}
