/** Figures of several rounds, printed as Markdown tables. */
import { cpus } from 'node:os'

/** Values by row and column. */
export class Figures {
  readonly #rows = new Map<string, Map<string, number[]>>()

  add(row: string, column: string, value: number): void {
    const columns = this.#rows.get(row) ?? new Map<string, number[]>()
    this.#rows.set(row, columns)
    columns.set(column, [...(columns.get(column) ?? []), value])
  }

  median(row: string, column: string): number | undefined {
    const values = this.#rows.get(row)?.get(column)
    return values && median(values)
  }

  /** Prints medians, with the range if there was more than one round. */
  print(heading: string, columns: readonly string[]): void {
    console.log(`| ${[heading, ...columns].join(' | ')} |`)
    console.log(`| ${['', ...columns].map(() => '---').join(' | ')} |`)
    for (const [row, values] of this.#rows) {
      const cells = columns.map((column) => cell(values.get(column) ?? []))
      console.log(`| ${[row, ...cells].join(' | ')} |`)
    }
    console.log()
  }
}

function cell(values: readonly number[]): string {
  if (values.length === 0) return ''
  const middle = format(median(values))
  if (values.length === 1) return middle
  return `${middle} (${format(Math.min(...values))} to ${format(Math.max(...values))})`
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

export function format(value: number): string {
  if (value >= 1000) return Math.round(value).toLocaleString('en')
  return value === 0 ? '0' : value.toFixed(value < 10 ? 2 : 1)
}

/** Prints date, processor and Node version, which every figure needs. */
export function printMachine(): void {
  const cpu = cpus()[0]?.model ?? 'unknown processor'
  const today = new Date().toISOString().slice(0, 10)
  console.log(`${today}, ${cpus().length} cores of ${cpu}, Node ${process.versions.node}`)
}
