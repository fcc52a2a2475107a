/** The lists that changed after a position, of all users and of one observer (tracked-users.ts). */
export const changedLists = `
create index users_by_list_pos on users (list_pos);
create index tracked_users_by_pos on tracked_users (observer_num, pos);
`
