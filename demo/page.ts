/** Prints the demo: numbered chapters, and lines of actor and action. Colour only on a terminal without NO_COLOR. */
import { styleText } from 'node:util'

type Tone = 'plain' | 'good' | 'bad'

const WHO_WIDTH = 16

export class Page {
  #chapter = 0

  title(text: string): void {
    console.log(`\n${style('bold', text)}`)
  }

  chapter(heading: string): void {
    this.#chapter++
    console.log(`\n${style('bold', `${this.#chapter}  ${heading}`)}`)
  }

  /** One step: its actor and its action. */
  line(who: string, what: string, tone: Tone = 'plain'): void {
    const text = tone === 'plain' ? what : style(tone === 'good' ? 'green' : 'red', what)
    console.log(`   ${style('dim', who.padEnd(WHO_WIDTH))} ${text}`)
  }

  good(who: string, what: string): void {
    this.line(who, what, 'good')
  }

  bad(who: string, what: string): void {
    this.line(who, what, 'bad')
  }
}

function style(format: 'bold' | 'dim' | 'green' | 'red', text: string): string {
  return styleText(format, text, { stream: process.stdout })
}
