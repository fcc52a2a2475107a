/**
 * Words and phrases that this project does not use, each with the word to use instead; docs/development/style.md
 * explains the rules. A space in a pattern also matches a line break. `·` is code, so `·` then a space is the start
 * of a comment. Only patterns that are almost never right belong here.
 */
export type BannedWord = readonly [pattern: RegExp, instead: string]

export const BANNED_WORDS: readonly BannedWord[] = [
  [/\banew\b/i, 'again, from the start, new'],
  [/\bfor ever\b/i, 'permanently, without limit, never ... again'],
  [/\bbeside\b/i, 'next to, besides, in addition to'],
  [/(?<!['"])\bnobody\b(?!['"])/i, 'no one, no client, no user'],
  [/\bwhoever\b/i, 'anyone who, the client that'],
  [/\bwhatever\b/i, 'any, regardless of'],
  [/(?<!\bthere )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|better\b|worse\b)/i, 'is not a, has no'],
  [/\bno more(?= ?[.,;:)])/i, 'no longer'],
  [/\b(?:she|her|hers|he|his|him)\b/i, 'they, their, them, or the role: the sender, the claimer'],
  // Not the column of the acknowledged count: part of a list, qualified, assigned or compared.
  [/(?<![.,'] ?)\btold\b(?! [=>]| integer)/i, 'notified, advertised, reported, returned'],
  [/\btells? of\b/i, 'reports'],
  [/\b(?:hears?|heard)\b/i, 'learns, receives, is notified'],
  [/\bstands? (?:for|in|on|at|under|above|below|behind|before|there|between|alone)\b/i, 'is, means'],
  [/\bas (?:it|they) stands?\b/i, 'unchanged, directly'],
  [/\bmend(?:s|ed|ing)?\b/i, 'fix, repair, heal'],
  [/\b(?:is|are|was|were|be|been) gone\b/i, 'removed, deleted, lost, used up'],
  [/\b(?:went|gone|set) back\b/i, 'was rolled back, was restored to an older state'],
  [/\b(?:is|are|was|were) to be\b/i, 'must be, will be, should be'],
  [/\bbec(?:o|a)mes? of\b/i, 'outcome of, result of'],
  [/\bof before\b/i, 'earlier, previous'],
  [/(?<!, ?)\bbut for\b/i, 'except for'],
  [/\bsome (?:\d|ten|twenty|fifty|hundred)/i, 'about'],
  [/\b(?:thrice|till|whilst|amongst|thereupon|whereupon|thereof|therein|herein)\b/i, 'a plain word'],
  [/(?:^|·)\s+(?:What|Who|Whose) /, 'a noun phrase at the start of a comment'],
  [/(?:^|·)\s+Of (?!course\b|the \w+, )/, 'a noun phrase at the start of a comment, with its unit'],
  [/(?<=(?:^|\n)#+ )What /, 'a noun phrase as a heading'],
]
