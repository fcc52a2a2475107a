/** `latchkey registration-token list | revoke`. */
import type { Command } from 'commander'
import { adminCommand } from './admin-command.ts'
import { plural, table, time } from './output.ts'
import { addPageOptions, moreLine, pageOf } from './page-options.ts'
import { databaseName } from './run-admin.ts'

export function registrationTokenCommands(): Command[] {
  return [list(), revoke()]
}

function list(): Command {
  return adminCommand('registration-token list', {
    description: 'List the registration tokens.',
    options: addPageOptions,
    help: 'Tokens are stored as hashes, so they are listed by an ID, which "registration-token revoke" takes.',
    examples: ['registration-token list', 'registration-token list --json'],
    input: (_args, command) => pageOf(command),
    print: ({ tokens, next }) =>
      table(
        ['ID', 'CREATED', 'EXPIRES', 'USES', 'STATE'],
        tokens.map(({ id, createdTs, expiresTs, uses, usesAllowed, usable }) => [
          id,
          time(createdTs),
          time(expiresTs),
          usesAllowed === null ? String(uses) : `${uses} of ${usesAllowed}`,
          usable ? 'usable' : 'spent',
        ]),
      ) + moreLine(next),
  })
}

function revoke(): Command {
  return adminCommand('registration-token revoke', {
    description: 'Revoke a registration token.',
    arguments: [['<TOKEN>', 'the token, or its ID']],
    help: 'No account can be created with it from now on. Accounts that were created with it stay.',
    examples: ['registration-token revoke 3oHc0zrW2QxK'],
    input: ([token = '']) => ({ token }),
    print: ({ revoked }, config) =>
      `Revoked ${plural(revoked.length, 'token')} in ${databaseName(config)}.\n`,
  })
}
